/* Linked into sanitizer builds: plug-ins of Open MPI stay loaded, so that the leak report knows whose memory it
 * lists and tests/lsan.supp can tell theirs from ours. */
int dlclose(void *handle);
int dlclose(void *handle) { return 0; }
