/* A GPU runtime without a GPU: HIP's interface, or with -DCUDA that of CUDA's driver, on the memory of the host. Kernels
 * are those of a library for the host under the name of one for a GPU.
 *
 * FAKE_GPUS         architectures of the devices, separated by commas: gfx942:sramecc+:xnack-,gfx942
 * FAKE_GPU_MEMORY   bytes that each of them has
 * FAKE_GPU_FAILS    call=code: this call fails
 * FAKE_GPU_LOST     number of the device that fails whatever is asked of it once a kernel may have run
 *
 * With -DOLD_PROPERTIES hipDeviceProp_t is that of HIP 5, with gcnArchName elsewhere and under another symbol. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

static int current;

/* The architectures of the visible devices, and their numbers on the machine. */
static int visible(char names[8][64], int numbers[8]) {
    char all[8][64], list[512];
    int count = 0, shown = 0;
    snprintf(list, sizeof list, "%s", getenv("FAKE_GPUS") ? getenv("FAKE_GPUS") : "");
    for (char* name = strtok(list, ","); name && count < 8; name = strtok(NULL, ",")) {
        snprintf(all[count++], 64, "%s", name);
    }
#ifdef CUDA
    const char* chosen = getenv("CUDA_VISIBLE_DEVICES");
#else
    const char* chosen = getenv("HIP_VISIBLE_DEVICES");
#endif
    for (int i = 0; i < count && !(chosen && *chosen); ++i) numbers[shown++] = i;
    if (chosen && *chosen) {
        snprintf(list, sizeof list, "%s", chosen);
        for (char* number = strtok(list, ","); number; number = strtok(NULL, ",")) {
            if (atoi(number) < count) numbers[shown++] = atoi(number);
        }
    }
    for (int i = 0; i < shown; ++i) memcpy(names[i], all[numbers[i]], 64);
    return shown;
}

/* The status of a call, by the variables. */
static int status(const char* call, int after_a_kernel) {
    char names[8][64];
    int numbers[8];
    const char* fails = getenv("FAKE_GPU_FAILS");
    if (fails && strncmp(fails, call, strlen(call)) == 0 && fails[strlen(call)] == '=') {
        return atoi(fails + strlen(call) + 1);
    }
    const char* lost = getenv("FAKE_GPU_LOST");
    const int count = visible(names, numbers);
    return after_a_kernel && lost && current < count && numbers[current] == atoi(lost) ? 719 : 0;
}

static int count_devices(int* count) {
    char names[8][64];
    int numbers[8];
    *count = visible(names, numbers);
    return *count == 0 ? 100 : 0;
}

static size_t memory(void) {
    return getenv("FAKE_GPU_MEMORY") ? strtoull(getenv("FAKE_GPU_MEMORY"), NULL, 10) : (size_t)1 << 34;
}

static int allocate(const char* call, void** pointer, size_t bytes) {
    if (status(call, 0) != 0) return status(call, 0);
    *pointer = aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *pointer ? 0 : 2;
}

static int copy(const char* call, void* to, const void* from, size_t bytes) {
    if (status(call, 0) == 0) memcpy(to, from, bytes);
    return status(call, 0);
}

static int new_stream(const char* call, void** stream) {
    static int one;
    *stream = &one;
    return status(call, 0);
}

static const char* name_of(int code) {
    switch (code) {
        case 2: return "FakeOutOfMemory";
        case 100: return "FakeNoDevice";
        case 719: return "FakeLaunchFailure";
        default: return "FakeError";
    }
}

#ifdef CUDA

API int cuInit(unsigned flags) { return flags == 0 ? status("cuInit", 0) : 1; }
API int cuDeviceGetCount(int* count) { return count_devices(count); }
API int cuDeviceGet(int* device, int index) { return (*device = index, status("cuDeviceGet", 0)); }
API int cuDeviceGetName(char* name, int size, int device) {
    return (snprintf(name, size, "Fake %d", device), status("cuDeviceGetName", 0));
}
API int cuDeviceTotalMem_v2(size_t* bytes, int device) { return (*bytes = memory(), device < 0); }
API int cuDeviceGetAttribute(int* value, int attribute, int device) {
    char names[8][64];
    int numbers[8], sm = 0;
    if (device >= visible(names, numbers) || sscanf(names[device], "sm_%d", &sm) != 1) return 101;
    *value = attribute == 75 ? sm / 10 : sm % 10;
    return status("cuDeviceGetAttribute", 0);
}
API int cuDevicePrimaryCtxRetain(void** context, int device) {
    return (*context = &current, current = device, status("cuDevicePrimaryCtxRetain", 0));
}
API int cuCtxSetCurrent(void* context) { return context == &current ? status("cuCtxSetCurrent", 0) : 201; }
API int cuStreamCreate(void** stream, unsigned flags) { return flags == 1 ? new_stream("cuStreamCreate", stream) : 1; }
API int cuMemAlloc_v2(void** pointer, size_t bytes) { return allocate("cuMemAlloc_v2", pointer, bytes); }
API int cuMemFree_v2(void* pointer) { return (free(pointer), 0); }
API int cuMemcpyHtoD_v2(void* to, const void* from, size_t bytes) { return copy("cuMemcpyHtoD_v2", to, from, bytes); }
API int cuMemcpyDtoH_v2(void* to, const void* from, size_t bytes) { return copy("cuMemcpyDtoH_v2", to, from, bytes); }
API int cuCtxSynchronize(void) { return status("cuCtxSynchronize", 1); }
API int cuGetErrorName(int code, const char** name) { return (*name = name_of(code), 0); }

#else

API int hipGetDeviceCount(int* count) { return count_devices(count); }
API int hipSetDevice(int device) { return (current = device, status("hipSetDevice", 0)); }
API int hipDeviceGetName(char* name, int size, int device) {
    return (snprintf(name, size, "Fake %d", device), status("hipDeviceGetName", 0));
}
API int hipDeviceTotalMem(size_t* bytes, int device) { return (*bytes = memory(), device < 0); }
API int hipStreamCreateWithFlags(void** stream, unsigned flags) {
    return flags == 1 ? new_stream("hipStreamCreateWithFlags", stream) : 1;
}
API int hipMalloc(void** pointer, size_t bytes) { return allocate("hipMalloc", pointer, bytes); }
API int hipFree(void* pointer) { return (free(pointer), 0); }
API int hipMemcpy(void* to, const void* from, size_t bytes, int kind) {
    return kind == 1 || kind == 2 ? copy("hipMemcpy", to, from, bytes) : 21;
}
API int hipDeviceSynchronize(void) { return status("hipDeviceSynchronize", 1); }
API const char* hipGetErrorName(int code) { return name_of(code); }

/* hipDeviceProp_t of HIP 5 has 792 bytes with gcnArchName at 396, that of HIP 6 has 1472 with it at 1160. */
static int properties(char* structure, int device, size_t bytes, size_t arch) {
    char names[8][64];
    int numbers[8];
    if (device >= visible(names, numbers)) return 101;
    memset(structure, 0, bytes);
    /* A name that looks like an architecture is none. */
    snprintf(structure, 256, "Fake gfx900 %d", device);
    snprintf(structure + arch, 256, "%s", names[device]);
    return status("hipGetDeviceProperties", 0);
}
#ifdef OLD_PROPERTIES
API int hipGetDeviceProperties(char* structure, int device) { return properties(structure, device, 792, 396); }
#else
API int hipGetDevicePropertiesR0600(char* structure, int device) { return properties(structure, device, 1472, 1160); }
/* Kept by HIP 6 for programs that were compiled before it. */
API int hipGetDeviceProperties(char* structure, int device) { return structure ? device | 1 : 1; }
#endif

#endif
