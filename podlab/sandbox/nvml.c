/* A libnvidia-ml.so.1 without a GPU: what pynvml calls, answered from a text file that $PODLAB_NVML_STATE names.
 *
 * The file is read again whenever it changes, so a card can be lost or its memory filled while a program looks on.
 * Its lines (written by gpus.py, and for tests by tests/nvml.py):
 *
 *   init CODE | init hang           what nvmlInit returns (0), or that it does not while this line stands
 *   driver TEXT                     570.86.15
 *   cuda NUMBER                     12080 for 12.8
 *   latency_us NUMBER               how long every call takes
 *   users FOLDER                    files CARD.PID whose text is MiB: a process that holds memory while it lives
 *   card INDEX KEY VALUE            name, uuid, total_mib, used_mib, utilization, celsius, milliwatts, limit_milliwatts,
 *                                   reasons (bits), lost 1, hang 1 (while it stands), latency_us, mig COUNT, without LIST (metrics it
 *                                   lacks), error CODE (of every figure), process PID:MIB (as often as wanted)
 *
 * Layouts and codes: nvml.h of the CUDA toolkit.
 */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, GPU_IS_LOST = 15 };
enum { MAX_CARDS = 64, MAX_PLACES = 7, MAX_PROCESSES = 64 };
#define MIB (1024ULL * 1024ULL)

typedef unsigned long long u64;
typedef struct { unsigned pid; u64 mib; } Holder;
typedef struct {
    char name[96], uuid[96], without[256];
    u64 total_mib, used_mib, reasons;
    unsigned utilization, celsius, milliwatts, limit_milliwatts, mig, holders;
    int lost, hang, error;
    long latency_us;
    Holder holder[MAX_PROCESSES];
} Card;
typedef struct { int card, place; } Handle;
typedef struct { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; } ProcessInfo;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } MemoryV2;

static struct {
    int init, init_hangs, cuda, cards;
    long latency_us;
    char driver[80], users[512];
    Card card[MAX_CARDS];
} state;
static struct timespec changed;
static ino_t inode;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Handle handles[MAX_CARDS][MAX_PLACES + 1];

static Card *card_at(int index) {
    while (state.cards <= index) {
        Card *card = &state.card[state.cards];
        memset(card, 0, sizeof *card);
        snprintf(card->name, sizeof card->name, "NVIDIA H100 80GB HBM3");
        snprintf(card->uuid, sizeof card->uuid, "GPU-00000000-0000-0000-0000-%012d", state.cards);
        card->total_mib = 81559;
        card->celsius = 34;
        card->milliwatts = 71250;
        card->limit_milliwatts = 700000;
        state.cards++;
    }
    return &state.card[index];
}

static void card_line(Card *card, const char *key, const char *value) {
    if (!strcmp(key, "name")) snprintf(card->name, sizeof card->name, "%s", value);
    else if (!strcmp(key, "uuid")) snprintf(card->uuid, sizeof card->uuid, "%s", value);
    else if (!strcmp(key, "without")) snprintf(card->without, sizeof card->without, ",%s,", value);
    else if (!strcmp(key, "total_mib")) card->total_mib = strtoull(value, NULL, 10);
    else if (!strcmp(key, "used_mib")) card->used_mib = strtoull(value, NULL, 10);
    else if (!strcmp(key, "reasons")) card->reasons = strtoull(value, NULL, 10);
    else if (!strcmp(key, "utilization")) card->utilization = atoi(value);
    else if (!strcmp(key, "celsius")) card->celsius = atoi(value);
    else if (!strcmp(key, "milliwatts")) card->milliwatts = atoi(value);
    else if (!strcmp(key, "limit_milliwatts")) card->limit_milliwatts = atoi(value);
    else if (!strcmp(key, "mig")) card->mig = atoi(value);
    else if (!strcmp(key, "lost")) card->lost = atoi(value);
    else if (!strcmp(key, "hang")) card->hang = atoi(value);
    else if (!strcmp(key, "error")) card->error = atoi(value);
    else if (!strcmp(key, "latency_us")) card->latency_us = atol(value);
    else if (!strcmp(key, "process") && card->holders < MAX_PROCESSES) {
        Holder *holder = &card->holder[card->holders++];
        sscanf(value, "%u:%llu", &holder->pid, &holder->mib);
    }
}

static void state_line(char *line) {
    char key[64], value[512] = "";
    int index;
    line[strcspn(line, "\n")] = 0;
    if (sscanf(line, "card %d %63s %511[^\n]", &index, key, value) >= 2) {
        if (index >= 0 && index < MAX_CARDS) card_line(card_at(index), key, value);
    } else if (sscanf(line, "%63s %511[^\n]", key, value) >= 1) {
        if (!strcmp(key, "init")) state.init_hangs = !strcmp(value, "hang"), state.init = atoi(value);
        else if (!strcmp(key, "driver")) snprintf(state.driver, sizeof state.driver, "%s", value);
        else if (!strcmp(key, "cuda")) state.cuda = atoi(value);
        else if (!strcmp(key, "latency_us")) state.latency_us = atol(value);
        else if (!strcmp(key, "users")) snprintf(state.users, sizeof state.users, "%s", value);
    }
}

/* Read the file if it is another one than last time. The lock is held. */
static void refresh(void) {
    const char *path = getenv("PODLAB_NVML_STATE");
    struct stat now;
    char line[1024];
    FILE *file;
    if (!path || stat(path, &now)) return;
    if (now.st_ino == inode && now.st_mtim.tv_sec == changed.tv_sec && now.st_mtim.tv_nsec == changed.tv_nsec) return;
    if (!(file = fopen(path, "r"))) return;
    memset(&state, 0, sizeof state);
    snprintf(state.driver, sizeof state.driver, "570.86.15");
    state.cuda = 12080;
    while (fgets(line, sizeof line, file)) state_line(line);
    fclose(file);
    inode = now.st_ino;
    changed = now.st_mtim;
}

static void wait_us(long us) {
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    if (us > 0) nanosleep(&time, NULL);
}

/* A copy of a card as it is now, after the time it takes to answer. */
static int look(Handle *handle, Card *card) {
    pthread_mutex_lock(&lock);
    refresh();
    int there = handle && handle->card < state.cards;
    if (there) *card = state.card[handle->card];
    long latency_us = state.latency_us;
    pthread_mutex_unlock(&lock);
    if (!there) return INVALID;
    wait_us(latency_us + card->latency_us);
    if (!card->hang) return card->lost ? GPU_IS_LOST : SUCCESS;
    wait_us(20000);
    return look(handle, card);
}

/* The same for a figure that a card may lack. */
static int figure(Handle *handle, Card *card, const char *name) {
    char word[64];
    int code = look(handle, card);
    snprintf(word, sizeof word, ",%s,", name);
    if (code) return code;
    if (card->error) return card->error;
    return strstr(card->without, word) ? NOT_SUPPORTED : SUCCESS;
}

/* Of a whole card: an instance has memory and processes, no sensors. */
static int sensor(Handle *handle, Card *card, const char *name) {
    int code = figure(handle, card, name);
    return code ? code : handle->place >= 0 ? NOT_SUPPORTED : SUCCESS;
}

static int alive(unsigned pid) { return kill((pid_t)pid, 0) == 0; }

/* Who holds memory of a card: those on its lines, and those in the folder of users, while they live. */
static unsigned holders_of(int index, const Card *card, Holder *found) {
    unsigned count = 0;
    for (unsigned i = 0; i < card->holders; i++) found[count++] = card->holder[i];
    pthread_mutex_lock(&lock);
    DIR *folder = *state.users ? opendir(state.users) : NULL;
    for (struct dirent *entry; folder && (entry = readdir(folder)) && count < MAX_PROCESSES;) {
        int on;
        char path[1100];
        Holder holder = {0, 0};
        if (sscanf(entry->d_name, "%d.%u", &on, &holder.pid) != 2 || on != index || !alive(holder.pid)) continue;
        snprintf(path, sizeof path, "%s/%s", state.users, entry->d_name);
        FILE *file = fopen(path, "r");
        if (file && fscanf(file, "%llu", &holder.mib) == 1) found[count++] = holder;
        if (file) fclose(file);
    }
    if (folder) closedir(folder);
    pthread_mutex_unlock(&lock);
    return count;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int hangs, code;
    do {
        pthread_mutex_lock(&lock);
        refresh();
        hangs = state.init_hangs, code = state.init;
        pthread_mutex_unlock(&lock);
        wait_us(hangs ? 20000 : 0);
    } while (hangs);
    return code;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *text, unsigned size) { return snprintf(text, size, "%s", state.driver), SUCCESS; }
int nvmlSystemGetCudaDriverVersion(int *version) { return *version = state.cuda, SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    pthread_mutex_lock(&lock);
    refresh();
    *count = state.cards;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle **handle) {
    Card card;
    if (index >= MAX_CARDS) return INVALID;
    *handle = &handles[index][MAX_PLACES];
    **handle = (Handle){(int)index, -1};
    return look(*handle, &card);
}

int nvmlDeviceGetName(Handle *handle, char *text, unsigned size) {
    Card card;
    int code = look(handle, &card);
    if (!code) snprintf(text, size, handle->place < 0 ? "%s" : "%s MIG 1g.10gb", card.name);
    return code;
}

int nvmlDeviceGetUUID(Handle *handle, char *text, unsigned size) {
    Card card;
    int code = look(handle, &card);
    if (code) return code;
    if (handle->place < 0) snprintf(text, size, "%s", card.uuid);
    else snprintf(text, size, "MIG-00000000-0000-0000-%04d-%012d", handle->place, handle->card);
    return code;
}

static int memory_of(Handle *handle, Memory *memory) {
    Card card;
    Holder holder[MAX_PROCESSES];
    int code = figure(handle, &card, "memory");
    if (code) return code;
    u64 used = card.used_mib;
    unsigned parts = card.mig && handle->place >= 0 ? MAX_PLACES : 1;
    for (unsigned i = 0, count = holders_of(handle->card, &card, holder); i < count; i++) used += holder[i].mib;
    memory->total = card.total_mib / parts * MIB;
    memory->used = used / parts * MIB;
    memory->free = memory->total > memory->used ? memory->total - memory->used : 0;
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(Handle *handle, Memory *memory) { return memory_of(handle, memory); }
int nvmlDeviceGetMemoryInfo_v2(Handle *handle, MemoryV2 *memory) {
    Memory plain = {0, 0, 0};
    int code = memory_of(handle, &plain);
    memory->total = plain.total, memory->free = plain.free, memory->used = plain.used, memory->reserved = 0;
    return code;
}

int nvmlDeviceGetUtilizationRates(Handle *handle, unsigned *rates) {
    Card card;
    int code = sensor(handle, &card, "utilization");
    if (!code) rates[0] = card.utilization, rates[1] = card.utilization / 2;
    return code;
}

#define SENSOR(FUNCTION, ARGUMENTS, TYPE, NAME, ...)       \
    int FUNCTION ARGUMENTS {                               \
        Card card;                                         \
        int code = sensor(handle, &card, NAME);            \
        if (!code) *value = (TYPE)(__VA_ARGS__);                \
        return code;                                       \
    }
SENSOR(nvmlDeviceGetTemperature, (Handle *handle, int kind, unsigned *value), unsigned, "temperature", (void)kind, card.celsius)
SENSOR(nvmlDeviceGetPowerUsage, (Handle *handle, unsigned *value), unsigned, "power", card.milliwatts)
SENSOR(nvmlDeviceGetEnforcedPowerLimit, (Handle *handle, unsigned *value), unsigned, "power", card.limit_milliwatts)
SENSOR(nvmlDeviceGetTotalEnergyConsumption, (Handle *handle, u64 *value), u64, "energy", 1234500)
SENSOR(nvmlDeviceGetClockInfo, (Handle *handle, int kind, unsigned *value), unsigned, "clocks", kind == 1 ? 1980 : 2619)
SENSOR(nvmlDeviceGetFanSpeed, (Handle *handle, unsigned *value), unsigned, "fan", 30)
SENSOR(nvmlDeviceGetTotalEccErrors, (Handle *handle, int kind, int counter, u64 *value), u64, "ecc", (void)kind, (void)counter, 0)
SENSOR(nvmlDeviceGetCurrentClocksThrottleReasons, (Handle *handle, u64 *value), u64, "reasons", card.reasons)

int nvmlDeviceGetComputeRunningProcesses_v3(Handle *handle, unsigned *count, ProcessInfo *found) {
    Card card;
    Holder holder[MAX_PROCESSES];
    int code = figure(handle, &card, "processes");
    if (code) return code;
    unsigned there = holders_of(handle->card, &card, holder), room = *count;
    *count = there;
    if (there > room) return TOO_SMALL;
    for (unsigned i = 0; i < there; i++) found[i] = (ProcessInfo){holder[i].pid, holder[i].mib * MIB, ~0u, ~0u};
    return SUCCESS;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(Handle *handle, unsigned *count, ProcessInfo *found) {
    Card card;
    (void)found;
    *count = 0;
    return figure(handle, &card, "processes");
}

int nvmlDeviceGetMigMode(Handle *handle, unsigned *current, unsigned *pending) {
    Card card;
    int code = look(handle, &card);
    if (!code && !card.mig) code = NOT_SUPPORTED;
    if (!code) *current = *pending = 1;
    return code;
}
int nvmlDeviceGetMaxMigDeviceCount(Handle *handle, unsigned *count) {
    Card card;
    *count = MAX_PLACES;
    return look(handle, &card);
}
int nvmlDeviceGetMigDeviceHandleByIndex(Handle *handle, unsigned place, Handle **instance) {
    Card card;
    int code = look(handle, &card);
    if (code) return code;
    if (place >= card.mig) return NOT_FOUND;
    *instance = &handles[handle->card][place];
    **instance = (Handle){handle->card, (int)place};
    return SUCCESS;
}
