/* A stand-in for the NVIDIA driver library, for tests on machines without one.
 *
 * It answers what the CUDA runtime asks first and then fails as it is told to:
 *   STANDIN_CUDA_VERSION  what cuDriverGetVersion reports (13020 = CUDA 13.2)
 *   STANDIN_CUDA_INIT     what cuInit returns (100 = no device, 35 = driver too old, ...)
 * cc -shared -fPIC -o libcuda.so.1 fake_libcuda.c
 */
#include <stdlib.h>
#include <string.h>

static int setting(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

int cuDriverGetVersion(int *version)
{
    *version = setting("STANDIN_CUDA_VERSION", 13020);
    return 0;
}

int cuInit(unsigned flags)
{
    (void)flags;
    return setting("STANDIN_CUDA_INIT", 100);
}

/* Every other entry point: an error, CUDA_ERROR_NOT_INITIALIZED. It must exist, or the runtime takes the driver for too old. */
static int other(void)
{
    return 3;
}

int cuGetProcAddress_v2(const char *name, void **entry, int version, unsigned long long flags, int *status);

int cuGetProcAddress(const char *name, void **entry, int version, unsigned long long flags)
{
    return cuGetProcAddress_v2(name, entry, version, flags, 0);
}

int cuGetProcAddress_v2(const char *name, void **entry, int version, unsigned long long flags, int *status)
{
    (void)flags;
    if (status)
        *status = 0;
    if (strcmp(name, "cuInit") == 0)
        *entry = (void *)cuInit;
    else if (strcmp(name, "cuDriverGetVersion") == 0)
        *entry = (void *)cuDriverGetVersion;
    else if (strcmp(name, "cuGetProcAddress") == 0)
        *entry = version >= 12000 ? (void *)cuGetProcAddress_v2 : (void *)cuGetProcAddress;
    else
        *entry = (void *)other;
    return 0;
}
