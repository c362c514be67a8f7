/* A ublk server of one queue and one request at a time, whose disk reads as zeros and forgets what is written.
 *
 * Usage: ublk SECTORS. Makes /dev/ublkb0 and serves it until it is killed. Debian 12 has no ublk server; the
 * interface is include/uapi/linux/ublk_cmd.h, with the numbers that Linux has since 6.4.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ENTRIES = 4, BUFFER = 1 << 16 };

struct control { /* struct ublksrv_ctrl_cmd */
    uint32_t device;
    uint16_t queue, length;
    uint64_t address, data;
    uint64_t rest;
};
struct info { /* struct ublksrv_ctrl_dev_info */
    uint16_t queues, depth, state, pad0;
    uint32_t buffer_bytes, device;
    int32_t pid;
    uint32_t pad1;
    uint64_t flags, server_flags;
    uint32_t uid, gid;
    uint64_t reserved[2];
};
struct parameters { /* struct ublk_params up to its basic part */
    uint32_t length, types, attributes;
    uint8_t logical_shift, physical_shift, optimal_shift, minimal_shift;
    uint32_t max_sectors, chunk_sectors;
    uint64_t sectors, boundary;
};
struct request { /* struct ublksrv_io_cmd */
    uint16_t queue, tag;
    int32_t result;
    uint64_t address;
};
struct descriptor { /* struct ublksrv_io_desc */
    uint32_t operation, sectors;
    uint64_t start, address;
};

#define ADD_DEVICE _IOWR('u', 0x04, struct control)
#define START_DEVICE _IOWR('u', 0x06, struct control)
#define SET_PARAMETERS _IOWR('u', 0x08, struct control)
#define FETCH _IOWR('u', 0x20, struct request)
#define COMMIT_AND_FETCH _IOWR('u', 0x21, struct request)

struct ring {
    int fd;
    char *rings;
    char *sqes;
    struct io_uring_params p;
};

static void check(long result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(result == -1 ? errno : (int)-result));
        exit(1);
    }
}

static void set_up(struct ring *ring) {
    ring->p.flags = IORING_SETUP_SQE128;
    ring->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &ring->p);
    check(ring->fd, "io_uring_setup");
    size_t size = 1 << 16;
    ring->rings = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
    ring->sqes = mmap(NULL, 128 * ENTRIES, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQES);
    if (ring->rings == MAP_FAILED || ring->sqes == MAP_FAILED)
        check(-1, "mmap of the ring");
}

static uint32_t *at(struct ring *ring, uint32_t offset) { return (uint32_t *)(ring->rings + offset); }

static void submit(struct ring *ring, int fd, uint32_t operation, const void *command, size_t length) {
    uint32_t tail = *at(ring, ring->p.sq_off.tail), index = tail & *at(ring, ring->p.sq_off.ring_mask);
    struct io_uring_sqe *sqe = (struct io_uring_sqe *)(ring->sqes + 128 * index);
    memset(sqe, 0, 128);
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = fd;
    sqe->off = operation; /* cmd_op lies there */
    memcpy((char *)sqe + 48, command, length);
    at(ring, ring->p.sq_off.array)[index] = index;
    __atomic_store_n(at(ring, ring->p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
    check(syscall(SYS_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0), "io_uring_enter");
}

static int wait_for(struct ring *ring) {
    uint32_t head = *at(ring, ring->p.cq_off.head);
    while (head == __atomic_load_n(at(ring, ring->p.cq_off.tail), __ATOMIC_ACQUIRE))
        if (syscall(SYS_io_uring_enter, ring->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0 && errno != EINTR)
            check(-1, "io_uring_enter");
    struct io_uring_cqe *cqes = (struct io_uring_cqe *)(ring->rings + ring->p.cq_off.cqes);
    int result = cqes[head & *at(ring, ring->p.cq_off.ring_mask)].res;
    __atomic_store_n(at(ring, ring->p.cq_off.head), head + 1, __ATOMIC_RELEASE);
    return result;
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    struct ring control = {0}, queue = {0};
    set_up(&control);
    set_up(&queue);
    int driver = open("/dev/ublk-control", O_RDWR);
    check(driver, "/dev/ublk-control");
    struct info info = {.queues = 1, .depth = 1, .buffer_bytes = BUFFER};
    struct control add = {.queue = 0xffff, .length = sizeof info, .address = (uint64_t)&info};
    submit(&control, driver, ADD_DEVICE, &add, sizeof add);
    check(wait_for(&control), "ADD_DEV");
    struct parameters parameters = {.length = sizeof parameters, .types = 1, .logical_shift = 9,
        .physical_shift = 12, .optimal_shift = 12, .minimal_shift = 9, .max_sectors = BUFFER >> 9,
        .sectors = strtoull(argv[1], NULL, 0)};
    struct control set = {.queue = 0xffff, .length = sizeof parameters, .address = (uint64_t)&parameters};
    submit(&control, driver, SET_PARAMETERS, &set, sizeof set);
    check(wait_for(&control), "SET_PARAMS");

    int device = -1;
    for (int tries = 0; device < 0 && tries < 1000; tries++, usleep(10000))
        device = open("/dev/ublkc0", O_RDWR);
    check(device, "/dev/ublkc0");
    struct descriptor *descriptors = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_POPULATE, device, 0);
    if (descriptors == MAP_FAILED)
        check(-1, "mmap of /dev/ublkc0");
    static char buffer[BUFFER] __attribute__((aligned(4096)));
    struct request request = {.address = (uint64_t)buffer};
    submit(&queue, device, FETCH, &request, sizeof request);
    struct control start = {.queue = 0xffff, .data = (uint64_t)getpid()};
    submit(&control, driver, START_DEVICE, &start, sizeof start); /* answers when the disk was first read */
    for (;;) {
        check(wait_for(&queue), "FETCH_REQ");
        memset(buffer, 0, sizeof buffer);
        request.result = (int32_t)(descriptors[0].sectors << 9);
        submit(&queue, device, COMMIT_AND_FETCH, &request, sizeof request);
    }
}
