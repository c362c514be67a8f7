/*
 * Plays sequences of system calls in real tasks, and prints what each task sees of itself after every call.
 *
 * usage: play FILE CONTROL
 *
 * FILE has a line a step, "TASK CALL ARG ARG ARG ARG ARG", numbers in hexadecimal; a line "-" ends a sequence. At
 * its beginning there is one task, number 0, a new process of root's with all capabilities; CALL is of the enum
 * below. For each step a line is printed: "RESULT FLAGS EFFECTIVE PERMITTED INHERITABLE", in hexadecimal: the
 * call's value or negative errno, task->flags of /proc/thread-self/stat, capget(2). CONTROL is /dev/mapper/control.
 *
 * Tasks wait in a page of shared memory, each on a word of its own, until it is their turn. Most share their whole
 * memory, processes too, because an emulated machine takes milliseconds to copy one; so there is nothing of the C
 * library's in a task that keeps a state but errno, which is that one's whose turn it is. A program that is
 * executed is this one, from a copy in /tmp that everybody may execute, and finds the page by its descriptor.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/dm-ioctl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21 /* since 5.4 */
#endif

enum call { LOOK, PRCTL, CAPSET, SETRESUID, UNSHARE, FORK, THREAD, EXEC, SPAWN, EXIT, NOIO, NOFS, NORECLAIM };

enum { TASKS = 16, MOST = 64 };
enum { SHARED = 100, CONTROL, DATA }; /* descriptors */
#define PROGRAM "/tmp/ioflusher-play"

struct step {
	unsigned int task, call;
	uint64_t args[5];
};

struct seen {
	int64_t result;
	uint64_t flags, effective, permitted, inheritable;
};

/* A task's turn: steps that it takes one after the other. One that executes or ends the program is the last. */
struct page {
	uint32_t go[TASKS];
	uint32_t done;
	unsigned int steps, answers;
	pid_t gone, of_process; /* a task that ended */
	struct step step[MOST];
	struct seen seen[MOST];
};

static struct page *page;
static char stacks[TASKS][32 << 10] __attribute__((aligned(64)));

static void wait_for(uint32_t *word)
{
	while (!__atomic_load_n(word, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
	__atomic_store_n(word, 0, __ATOMIC_RELAXED);
}

static void wake(uint32_t *word)
{
	__atomic_store_n(word, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* What this thread is after a call, told to the first process. */
static void tell(int own_stat, int64_t result)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };
	struct seen *seen = &page->seen[page->answers];
	char text[1024] = "", *field;
	if (pread(own_stat, text, sizeof text - 1, 0) < 0 || syscall(SYS_capget, &header, data))
		abort();
	field = strrchr(text, ')');
	for (int number = 0; number < 7; number++)
		field = strchr(field + 1, ' ');
	seen->flags = strtoull(field, NULL, 10);
	seen->effective = data[0].effective | (uint64_t)data[1].effective << 32;
	seen->permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	seen->inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
	seen->result = result;
	if (++page->answers == page->steps)
		wake(&page->done);
}

/* /proc/thread-self/stat, which takes longer to open than to read */
static int open_stat(void)
{
	int own_stat = open("/proc/thread-self/stat", O_RDONLY | O_CLOEXEC);
	if (own_stat < 0)
		abort();
	return own_stat;
}

static int serve(void *number);

static long start(uint64_t number, int flags)
{
	return clone(serve, stacks[number] + sizeof stacks[number], flags, (void *)number);
}

/* "executed" reports to the first process what came of it; "spawned" leaves that to its parent */
static void arguments(const char *how, uintptr_t number, char *words[4], char text[8])
{
	snprintf(text, 8, "%u", (unsigned int)number);
	words[0] = (char *)"play";
	words[1] = (char *)how;
	words[2] = text;
	words[3] = NULL;
}

static int execute(void *number)
{
	char *words[4], text[8];
	arguments("spawned", (uintptr_t)number, words, text);
	execve(PROGRAM, words, environ);
	abort();
}

/* A child that executes a program while its parent waits, as posix_spawn has it. */
static long spawn(uint64_t number)
{
	return clone(execute, stacks[number] + sizeof stacks[number], CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)number);
}

/* A NOIO scope: the ioctl's buffer is larger than kmalloc gives, so it is vmalloc'ed under memalloc_noio_save. */
static long noio(void)
{
	static union {
		struct dm_ioctl order;
		char space[5 << 20];
	} buffer;
	memset(&buffer.order, 0, sizeof buffer.order);
	buffer.order.version[0] = DM_VERSION_MAJOR;
	buffer.order.data_size = sizeof buffer;
	buffer.order.data_start = sizeof buffer.order;
	return ioctl(CONTROL, DM_LIST_DEVICES, &buffer);
}

/* A NOFS scope: read-ahead of a file. */
static long nofs(void)
{
	return posix_fadvise(DATA, 0, 4096, POSIX_FADV_WILLNEED) ? -1 : 0;
}

/* A scope of PF_MEMALLOC: reclaim that a program asks for. */
static long noreclaim(void)
{
	char *memory = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long result;
	if (memory == MAP_FAILED)
		return -1;
	memset(memory, 1, 16384);
	result = madvise(memory, 16384, MADV_PAGEOUT);
	munmap(memory, 16384);
	return result;
}

static int64_t do_call(int own_stat, const struct step *step)
{
	const uint64_t *args = step->args;
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	char *words[4], text[8];
	long result = 0;
	switch ((enum call)step->call) {
	case LOOK:
		break;
	case PRCTL:
		result = syscall(SYS_prctl, args[0], args[1], args[2], args[3], args[4]);
		break;
	case CAPSET:
		for (int half = 0; half < 2; half++) {
			data[half].effective = args[0] >> 32 * half;
			data[half].permitted = args[1] >> 32 * half;
			data[half].inheritable = args[2] >> 32 * half;
		}
		result = syscall(SYS_capset, &header, data);
		break;
	case SETRESUID: /* not the library's, which does it to every thread */
		result = syscall(SYS_setresuid, args[0], args[1], args[2]);
		break;
	case UNSHARE:
		result = unshare((int)args[0]);
		break;
	case FORK: /* the second argument: CLONE_VM or nothing */
		result = start(args[0], SIGCHLD | args[1]);
		break;
	case THREAD:
		result = start(args[0], CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM);
		break;
	case EXEC:
		arguments("executed", step->task, words, text);
		result = execve(PROGRAM, words, environ);
		break;
	case SPAWN:
		result = spawn(args[0]);
		break;
	case EXIT:
		page->gone = syscall(SYS_gettid);
		page->of_process = getpid();
		tell(own_stat, 0);
		syscall(SYS_exit, 0);
		break;
	case NOIO:
		result = noio();
		break;
	case NOFS:
		result = nofs();
		break;
	case NORECLAIM:
		result = noreclaim();
		break;
	}
	if (result > 0 && (step->call == FORK || step->call == THREAD || step->call == SPAWN))
		return 0; /* not the number that chance gave it */
	return result == -1 ? -errno : result;
}

static int serve(void *number)
{
	int own_stat = open_stat();
	for (;;) {
		wait_for(&page->go[(uintptr_t)number]);
		/* after the last answer the page is another task's */
		for (unsigned int next = 0, steps = page->steps; next < steps; next++) {
			struct step step = page->step[next];
			tell(own_stat, do_call(own_stat, &step));
		}
	}
	return 0;
}

static void map(void)
{
	page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, SHARED, 0);
	if (page == MAP_FAILED) {
		perror("play: mmap");
		exit(2);
	}
}

static void at(int number, int descriptor, const char *what)
{
	if (descriptor < 0 || dup2(descriptor, number) < 0) {
		fprintf(stderr, "play: %s: %s\n", what, strerror(errno));
		exit(2);
	}
	close(descriptor);
}

static void copy_program(void)
{
	static char buffer[1 << 16];
	int from = open("/proc/self/exe", O_RDONLY), to = open(PROGRAM, O_WRONLY | O_CREAT | O_TRUNC, 0755);
	ssize_t size;
	while ((size = read(from, buffer, sizeof buffer)) > 0)
		if (write(to, buffer, size) != size)
			break;
	if (size || fchmod(to, 0755) || close(to)) {
		perror("play: " PROGRAM);
		exit(2);
	}
	close(from);
}

/* Have a task take the steps that are ready, and print what it saw. */
static void take(void)
{
	if (!page->steps)
		return;
	page->answers = 0;
	wake(&page->go[page->step[0].task]);
	wait_for(&page->done);
	while (page->gone && !syscall(SYS_tgkill, page->of_process, page->gone, 0))
		sched_yield(); /* what comes next may depend on how many threads there are */
	page->gone = 0;
	for (unsigned int number = 0; number < page->steps; number++) {
		const struct seen *seen = &page->seen[number];
		printf("%lx %lx %lx %lx %lx\n", seen->result, seen->flags, seen->effective, seen->permitted,
		       seen->inheritable);
	}
	page->steps = 0;
}

/* A new process, as the first task of a sequence. */
static pid_t begin(void)
{
	pid_t first;
	first = start(0, CLONE_VM | SIGCHLD);
	if (first < 0 || setpgid(first, first)) {
		perror("play: a new process");
		exit(2);
	}
	return first;
}

/* End all tasks of a sequence, so that the page is free. */
static void end(pid_t first)
{
	kill(-first, SIGKILL);
	while (waitpid(-1, NULL, 0) >= 0 || errno != ECHILD)
		;
	memset(page, 0, sizeof *page);
}

static void play(FILE *file)
{
	char line[256];
	pid_t first = 0;
	while (fgets(line, sizeof line, file)) {
		struct step step = { 0 };
		if (line[0] == '-') {
			if (first) {
				take();
				end(first);
			}
			first = 0;
			puts("-");
			continue;
		}
		if (sscanf(line, "%x %x %lx %lx %lx %lx %lx", &step.task, &step.call, &step.args[0], &step.args[1],
			   &step.args[2], &step.args[3], &step.args[4]) < 2 ||
		    step.task >= TASKS) {
			fprintf(stderr, "play: not a step: %s", line);
			exit(2);
		}
		if (!first)
			first = begin();
		if (page->steps && (page->steps == MOST || page->step[0].task != step.task))
			take();
		page->step[page->steps++] = step;
		if (step.call == EXEC || step.call == EXIT)
			take();
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	FILE *file;
	if (argc == 3 && (!strcmp(argv[1], "executed") || !strcmp(argv[1], "spawned"))) {
		map();
		if (argv[1][0] == 'e')
			tell(open_stat(), 0);
		serve((void *)(uintptr_t)atoi(argv[2]));
	}
	if (argc != 3 || !(file = fopen(argv[1], "r"))) {
		fprintf(stderr, "usage: play FILE CONTROL\n");
		return 2;
	}
	signal(SIGCHLD, SIG_IGN); /* tasks need not wait for their children, */
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* which are this process's when they are gone */
	copy_program();
	at(SHARED, memfd_create("page", MFD_CLOEXEC), "memfd_create");
	if (ftruncate(SHARED, sizeof *page))
		return 2;
	map();
	at(CONTROL, open(argv[2], O_RDWR), argv[2]);
	at(DATA, open("/proc/self/exe", O_RDONLY), "/proc/self/exe");
	play(file);
	return 0;
}
