/* Prints the configuration reference that is configs/README.md. */
#include "base/config.h"

int main(void)
{
    config_write_reference(stdout);
    return 0;
}
