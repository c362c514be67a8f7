/*
 * Threads in every kind of wait, each of which checks every call it makes: none may fail, none may return
 * what was not sent, and no timed wait may end early.
 *
 * usage: waits THREADS [WAIT_MS [FEED_MS [interruptible]]]
 *
 * WAIT_MS is how long timed waits last, FEED_MS how often the others get what they wait for. With
 * "interruptible" a wait may end with EINTR, as after SIGSTOP and SIGCONT.
 * Prints "ready" when all threads run; on SIGTERM it stops and prints a line a kind: name, threads, rounds,
 * and the longest time that a timed wait was late in milliseconds. A failure is printed at once, with what was
 * expected and found, and makes the exit status 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static long wait_ms = 150, feed_ms = 50;
static int interruptible;

struct worker {
	pthread_t thread;
	int kind;
	int in, out;		/* what the worker waits on, and where the feeder feeds it */
	int sem;
	atomic_ulong fed, rounds, late_ms;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	uint32_t word;
};

static atomic_int stopping, failures;
static pthread_barrier_t started;

static void fail(const char *what, long expected, long found)
{
	atomic_fetch_add(&failures, 1);
	printf("FAIL %s: expected %ld, found %ld, errno %d (%s)\n", what, expected, found, errno,
	       strerror(errno));
	fflush(stdout);
}

#define EXPECT(what, expected, call)                                                                  \
	do {                                                                                          \
		errno = 0;                                                                            \
		long found_ = (call);                                                                 \
		if (found_ == -1 && errno == EINTR && interruptible)                                  \
			return;                                                                       \
		if (found_ != (long)(expected) && !stopping)                                          \
			fail(what, (long)(expected), found_);                                         \
	} while (0)

static int64_t clock_us(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int64_t now_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

/* A timed wait of wait_ms that began at `begun` has ended: not early, and by how much late. */
static void timed(struct worker *w, const char *what, int64_t begun)
{
	int64_t took = now_us() - begun;
	unsigned long late = took > wait_ms * 1000 ? (took - wait_ms * 1000) / 1000 : 0;

	/* Timeouts in milliseconds are rounded by the kernel; a microsecond of rounding is not early. */
	if (took < wait_ms * 1000 - 1 && !stopping)
		fail(what, wait_ms * 1000, took);
	if (late > w->late_ms)
		w->late_ms = late;
}

static struct timespec wait_time(void)
{
	return (struct timespec){ wait_ms / 1000, wait_ms % 1000 * 1000000L };
}

static void do_nanosleep(struct worker *w)
{
	struct timespec t = wait_time();
	int64_t begun = now_us();

	EXPECT("nanosleep", 0, syscall(SYS_nanosleep, &t, NULL));
	timed(w, "nanosleep", begun);
}

static void do_clock_nanosleep(struct worker *w)
{
	struct timespec t;
	int64_t begun = now_us(), end = begun + wait_ms * 1000;

	t = (struct timespec){ end / 1000000, end % 1000000 * 1000 };
	EXPECT("clock_nanosleep", 0, clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL));
	timed(w, "clock_nanosleep", begun);
}

static void do_futex(struct worker *w)
{
	struct timespec t = wait_time();
	int64_t begun = now_us();

	EXPECT("futex", -1, syscall(SYS_futex, &w->word, FUTEX_WAIT, 0, &t, NULL, 0));
	if (errno != ETIMEDOUT && !stopping)
		fail("futex errno", ETIMEDOUT, errno);
	timed(w, "futex", begun);
}

static void do_cond(struct worker *w)
{
	unsigned long before = w->fed;

	pthread_mutex_lock(&w->lock);
	while (w->fed == before && !stopping)
		EXPECT("pthread_cond_wait", 0, pthread_cond_wait(&w->cond, &w->lock));
	pthread_mutex_unlock(&w->lock);
}

static void do_epoll(struct worker *w)
{
	struct epoll_event event = { .events = EPOLLIN }, got = { 0 };
	int e = epoll_create1(0);
	uint64_t value = 0;

	EXPECT("epoll_ctl", 0, epoll_ctl(e, EPOLL_CTL_ADD, w->in, &event));
	EXPECT("epoll_wait", 1, epoll_wait(e, &got, 1, -1));
	EXPECT("read eventfd", 8, read(w->in, &value, 8));
	close(e);
}

static void do_epoll_timeout(struct worker *w)
{
	struct epoll_event got;
	int e = epoll_create1(0);
	int64_t begun = now_us();

	EXPECT("epoll_wait timeout", 0, epoll_wait(e, &got, 1, wait_ms));
	timed(w, "epoll_wait timeout", begun);
	close(e);
}

static void do_read(struct worker *w)
{
	char byte = 0;

	EXPECT("read", 1, read(w->in, &byte, 1));
	if (byte != 'x' && !stopping)
		fail("read byte", 'x', byte);
}

static void do_recv(struct worker *w)
{
	char byte = 0;

	EXPECT("recv", 1, recv(w->in, &byte, 1, 0));
	if (byte != 'x' && !stopping)
		fail("recv byte", 'x', byte);
}

static void do_recv_timeout(struct worker *w)
{
	struct timeval t = { wait_ms / 1000, wait_ms % 1000 * 1000 };
	int pair[2];
	char byte;
	int64_t begun, took;

	EXPECT("socketpair", 0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	begun = clock_us(CLOCK_MONOTONIC_COARSE);
	EXPECT("read with SO_RCVTIMEO", -1, read(pair[0], &byte, 1));
	if (errno != EAGAIN && !stopping)
		fail("read with SO_RCVTIMEO errno", EAGAIN, errno);
	/*
	 * Socket timeouts count in jiffies, which stand still while a virtual machine does: measured on the
	 * clock that ticks with them, and one of at most 10 ms may be missing.
	 */
	took = clock_us(CLOCK_MONOTONIC_COARSE) - begun;
	timed(w, "read with SO_RCVTIMEO", now_us() - took - 10000);
	close(pair[0]);
	close(pair[1]);
}

static void do_poll(struct worker *w)
{
	struct pollfd fd = { .fd = -1 };
	int64_t begun = now_us();

	EXPECT("poll", 0, poll(&fd, 1, wait_ms));
	timed(w, "poll", begun);
}

static void do_ppoll(struct worker *w)
{
	struct pollfd fd = { .fd = w->in, .events = POLLIN };
	char byte = 0;
	sigset_t none;

	sigemptyset(&none);
	EXPECT("ppoll", 1, ppoll(&fd, 1, NULL, &none));
	EXPECT("read after ppoll", 1, read(w->in, &byte, 1));
}

static void do_select(struct worker *w)
{
	struct timeval t = { wait_ms / 1000, wait_ms % 1000 * 1000 };
	int64_t begun = now_us();

	EXPECT("select", 0, select(0, NULL, NULL, NULL, &t));
	timed(w, "select", begun);
}

static void do_sigtimedwait(struct worker *w)
{
	struct timespec t = wait_time();
	int64_t begun = now_us();
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	EXPECT("sigtimedwait", -1, sigtimedwait(&set, NULL, &t));
	if (errno != EAGAIN && !stopping)
		fail("sigtimedwait errno", EAGAIN, errno);
	timed(w, "sigtimedwait", begun);
}

static void do_semop(struct worker *w)
{
	struct sembuf take = { .sem_op = -1 };

	EXPECT("semop", 0, semop(w->sem, &take, 1));
}

static void do_accept(struct worker *w)
{
	int fd;

	errno = 0;
	fd = accept(w->in, NULL, NULL);
	if (fd < 0 && !stopping)
		fail("accept", 0, fd);
	else
		close(fd);
}

/* Registers, flags and vector registers of code that runs all the time. */
static void do_compute(struct worker *w)
{
	uint64_t sum = 0, a = 1, b = 2, c = 3, d = 4;
	double x = 0;

	for (int i = 0; i < 20000; i++) {
		a = a * 6364136223846793005ULL + 1;
		b ^= a >> 17;
		c += b * 3;
		d = d << 5 | d >> 59;
		sum += (a < b) + (c ^ d);
		x += 0.5;
	}
	if (w->rounds == 0)
		w->fed = sum;
	if (sum != w->fed || x != 10000.0)
		fail("arithmetic", (long)w->fed, (long)sum);
	usleep(feed_ms * 1000);
}

struct ring {
	int fd;
	unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static int open_ring(struct ring *r)
{
	struct io_uring_params p = { 0 };
	char *sq, *cq;

	r->fd = syscall(SYS_io_uring_setup, 4, &p);
	if (r->fd < 0)
		return -1;
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
		  IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(*r->cqes), PROT_READ | PROT_WRITE, MAP_SHARED,
		  r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof(*r->sqes), PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
		       IORING_OFF_SQES);
	r->sq_tail = (unsigned *)(sq + p.sq_off.tail);
	r->sq_mask = (unsigned *)(sq + p.sq_off.ring_mask);
	r->sq_array = (unsigned *)(sq + p.sq_off.array);
	r->cq_head = (unsigned *)(cq + p.cq_off.head);
	r->cq_tail = (unsigned *)(cq + p.cq_off.tail);
	r->cq_mask = (unsigned *)(cq + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	return 0;
}

/* One timeout operation, submitted and then waited for in a call of its own. */
static void do_io_uring(struct worker *w)
{
	static __thread struct ring ring = { .fd = -1 };
	struct timespec t = wait_time();
	unsigned tail, head;
	int64_t begun;
	long found;

	if (ring.fd < 0 && open_ring(&ring) < 0) {
		fail("io_uring_setup", 0, -1);
		usleep(100000);
		return;
	}
	tail = *ring.sq_tail;
	ring.sq_array[tail & *ring.sq_mask] = tail & *ring.sq_mask;
	ring.sqes[tail & *ring.sq_mask] = (struct io_uring_sqe){
		.opcode = IORING_OP_TIMEOUT, .fd = -1, .addr = (uintptr_t)&t, .len = 1, .user_data = 42,
	};
	atomic_thread_fence(memory_order_release);
	*(volatile unsigned *)ring.sq_tail = tail + 1;
	begun = now_us();
	EXPECT("io_uring submit", 1, syscall(SYS_io_uring_enter, ring.fd, 1, 0, 0, NULL, 0));
	do
		found = syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
	while (found == -1 && errno == EINTR && interruptible);
	if (found)
		fail("io_uring wait", 0, found);
	timed(w, "io_uring wait", begun);
	head = *ring.cq_head;
	if (head == *(volatile unsigned *)ring.cq_tail)
		fail("io_uring completions", 1, 0);
	else if (ring.cqes[head & *ring.cq_mask].user_data != 42)
		fail("io_uring user_data", 42, ring.cqes[head & *ring.cq_mask].user_data);
	*(volatile unsigned *)ring.cq_head = *ring.cq_tail;
}

enum feed { NOTHING, BYTE, COUNT, CONDITION, SEMAPHORE, CONNECTION };

static const struct kind {
	const char *name;
	void (*wait)(struct worker *);
	enum feed feed;
} kinds[] = {
	{ "nanosleep", do_nanosleep, NOTHING },
	{ "clock_nanosleep", do_clock_nanosleep, NOTHING },
	{ "futex", do_futex, NOTHING },
	{ "cond", do_cond, CONDITION },
	{ "epoll", do_epoll, COUNT },
	{ "epoll_timeout", do_epoll_timeout, NOTHING },
	{ "read", do_read, BYTE },
	{ "recv", do_recv, BYTE },
	{ "recv_timeout", do_recv_timeout, NOTHING },
	{ "poll", do_poll, NOTHING },
	{ "ppoll", do_ppoll, BYTE },
	{ "select", do_select, NOTHING },
	{ "sigtimedwait", do_sigtimedwait, NOTHING },
	{ "semop", do_semop, SEMAPHORE },
	{ "accept", do_accept, CONNECTION },
	{ "io_uring", do_io_uring, NOTHING },
	{ "compute", do_compute, NOTHING },
};
#define KINDS ((int)(sizeof kinds / sizeof kinds[0]))

static void *work(void *argument)
{
	struct worker *w = argument;

	pthread_barrier_wait(&started);
	while (!stopping) {
		kinds[w->kind].wait(w);
		w->rounds++;
	}
	return NULL;
}

static void prepare(struct worker *w)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int pair[2];

	w->in = w->out = w->sem = -1;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
	switch (kinds[w->kind].feed) {
	case BYTE:
		if (kinds[w->kind].wait == do_recv)
			EXPECT("socketpair", 0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
		else
			EXPECT("pipe", 0, pipe(pair));
		w->in = pair[0];
		w->out = pair[1];
		break;
	case COUNT:
		w->in = w->out = eventfd(0, 0);
		break;
	case SEMAPHORE:
		w->sem = semget(IPC_PRIVATE, 1, 0600);
		break;
	case CONNECTION:
		w->in = socket(AF_UNIX, SOCK_STREAM, 0);
		/* an abstract name of the kernel's choice */
		EXPECT("bind", 0, bind(w->in, (struct sockaddr *)&address, sizeof(sa_family_t)));
		EXPECT("listen", 0, listen(w->in, 4));
		break;
	default:
		break;
	}
}

static void feed(struct worker *w)
{
	struct sockaddr_un address;
	socklen_t length = sizeof address;
	struct sembuf give = { .sem_op = 1 };
	uint64_t one = 1;
	int fd;

	switch (kinds[w->kind].feed) {
	case BYTE:
		EXPECT("feed", 1, write(w->out, "x", 1));
		break;
	case COUNT:
		EXPECT("feed eventfd", 8, write(w->out, &one, 8));
		break;
	case CONDITION:
		pthread_mutex_lock(&w->lock);
		w->fed++;
		pthread_cond_signal(&w->cond);
		pthread_mutex_unlock(&w->lock);
		break;
	case SEMAPHORE:
		EXPECT("feed semaphore", 0, semop(w->sem, &give, 1));
		break;
	case CONNECTION:
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		getsockname(w->in, (struct sockaddr *)&address, &length);
		EXPECT("connect", 0, connect(fd, (struct sockaddr *)&address, length));
		close(fd);
		break;
	default:
		break;
	}
}

static void stop(int number)
{
	(void)number;
	stopping = 1;
}

static void report(struct worker *workers, int count)
{
	for (int kind = 0; kind < KINDS; kind++) {
		unsigned long threads = 0, rounds = 0, least = -1UL, late = 0;

		for (int i = 0; i < count; i++) {
			if (workers[i].kind != kind)
				continue;
			threads++;
			rounds += workers[i].rounds;
			least = workers[i].rounds < least ? workers[i].rounds : least;
			late = workers[i].late_ms > late ? workers[i].late_ms : late;
		}
		printf("%s %lu %lu %lu %lu\n", kinds[kind].name, threads, rounds, least, late);
	}
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : KINDS;
	struct worker *workers = calloc(count, sizeof *workers);
	struct sigaction action = { .sa_handler = stop };
	pthread_attr_t attributes;
	sigset_t set;

	wait_ms = argc > 2 ? atol(argv[2]) : wait_ms;
	feed_ms = argc > 3 ? atol(argv[3]) : feed_ms;
	interruptible = argc > 4;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 65536);
	pthread_barrier_init(&started, NULL, count + 1);
	for (int i = 0; i < count; i++) {
		workers[i].kind = i % KINDS;
		prepare(&workers[i]);
		if (pthread_create(&workers[i].thread, &attributes, work, &workers[i])) {
			fail("pthread_create", 0, -1);
			return 1;
		}
	}
	sigaction(SIGTERM, &action, NULL);
	pthread_barrier_wait(&started);
	printf("ready\n");
	fflush(stdout);
	while (!stopping) {
		usleep(feed_ms * 1000);
		for (int i = 0; i < count && !stopping; i++)
			feed(&workers[i]);
	}
	/* No join: many threads wait for what nobody feeds any more. */
	report(workers, count);
	for (int i = 0; i < count; i++)
		if (workers[i].sem >= 0)
			semctl(workers[i].sem, 0, IPC_RMID);
	fflush(stdout);
	_exit(failures ? 1 : 0);
}
