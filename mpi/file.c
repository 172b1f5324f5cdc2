#include "mpi/file.h"

#include <stdlib.h>
#include <string.h>

#include "mpi/watchdog.h"

enum { PIECE_BYTES = 1 << 30 };

/* Open MPI tells the kind of failure through the error class's text. */
static enum status failed(const char *path, const char *doing, int code)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length;
    MPI_Error_string(code, text, &length);
    return fail(ST_OUTPUT, "%s: %s through MPI-IO failed: %s; free some space, or try --io posix", path, doing, text);
}

enum status file_open(struct comm *comm, const char *path, const char *driver, struct shared_file *out)
{
    WATCH_EXCHANGE();
    /* Open MPI looks at this variable when the first file is opened. */
    if (strcmp(driver, "romio") == 0) setenv("OMPI_MCA_io", "romio321", 0);
    if (strcmp(driver, "ompio") == 0) setenv("OMPI_MCA_io", "ompio", 0);
    *out = (struct shared_file){.handle = MPI_FILE_NULL, .path = path};
    int code = MPI_File_open(comm->handle, path, MPI_MODE_WRONLY, MPI_INFO_NULL, &out->handle);
    return comm_agree(comm, code == MPI_SUCCESS ? ST_OK : failed(path, "opening", code));
}

enum status file_write(struct shared_file *file, int64_t offset, const void *data, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        int piece = (int)(bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES), written = 0;
        MPI_Status status;
        int code = MPI_File_write_at(file->handle, offset + at, (const char *)data + at, piece, MPI_BYTE, &status);
        if (code != MPI_SUCCESS) return failed(file->path, "writing", code);
        MPI_Get_count(&status, MPI_BYTE, &written);
        if (written != piece)
            return fail(ST_OUTPUT, "%s: only %d of %d bytes were written; free some space", file->path, written, piece);
    }
    return ST_OK;
}

enum status file_close(struct comm *comm, struct shared_file *file)
{
    WATCH_EXCHANGE();
    if (file->handle == MPI_FILE_NULL) return ST_OK;
    int synced = MPI_File_sync(file->handle), closed = MPI_File_close(&file->handle);
    file->handle = MPI_FILE_NULL;
    enum status st = synced != MPI_SUCCESS   ? failed(file->path, "putting on disk", synced)
                     : closed != MPI_SUCCESS ? failed(file->path, "closing", closed)
                                             : ST_OK;
    return comm_agree(comm, st);
}
