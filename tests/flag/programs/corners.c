/*
 * Processes in states that are hard to stop or must not be touched.
 *
 * usage: corners WHAT
 *
 *   vfork     the parent waits uninterruptibly for a child that executes nothing until SIGTERM
 *   filter    a seccomp filter kills the process that calls prctl
 *   refuse    a seccomp filter answers prctl with ENOSYS
 *   handler   a timer's signal comes every millisecond, its handler counts; the main thread computes
 *   ignored   threads in epoll_wait, while ignored signals come all the time
 *   exec      executes itself again and again
 *   births    a thread that starts short threads all the time
 *   vectors   computes in vector registers and makes a call now and then
 *   endless   the same without any call
 *   sleeper   sleeps
 *
 * Prints "ready". On SIGTERM to its process group prints a line of its own and exits with 0 if all was well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int stopping;
static atomic_long ticks, interrupted;

static void stop(int number)
{
	(void)number;
	stopping = 1;
}

static void ready(void)
{
	printf("ready\n");
	fflush(stdout);
}

static void wait_for_the_end(void)
{
	while (!stopping)
		usleep(10000);
}

static int do_vfork(void)
{
	pid_t child;

	ready();
	child = vfork();
	if (child == 0) {
		/* The parent sleeps until this ends. */
		while (!stopping)
			usleep(10000);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	return 0;
}

static int filter(unsigned int action)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof code / sizeof *code, code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 1;
	ready();
	wait_for_the_end();
	printf("alive\n");
	return 0;
}

static void tick(int number)
{
	(void)number;
	ticks++;
}

static int do_handler(void)
{
	struct sigaction action = { .sa_handler = tick, .sa_flags = SA_RESTART };
	struct itimerval every = { { 0, 1000 }, { 0, 1000 } };
	uint64_t first = 0;
	long wrong = 0;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	ready();
	while (!stopping) {
		uint64_t a = 1, b = 0;

		for (int i = 0; i < 1000; i++) {
			a = a * 6364136223846793005ULL + 1442695040888963407ULL;
			b ^= a;
		}
		if (first == 0)
			first = b;
		wrong += b != first;
	}
	printf("%ld ticks, %ld wrong\n", (long)ticks, wrong);
	return ticks == 0 || wrong;
}

static void *epoll_forever(void *unused)
{
	struct epoll_event event;
	int e = epoll_create1(0);

	(void)unused;
	for (;;)
		/* on a busy machine SIGTERM may reach this thread, not the first */
		if (epoll_wait(e, &event, 1, -1) == -1 && !stopping)
			interrupted++;
	return NULL;
}

static int do_ignored(void)
{
	pthread_t thread[4];

	signal(SIGUSR1, SIG_IGN);
	for (int i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, epoll_forever, NULL);
	ready();
	while (!stopping) {
		for (int i = 0; i < 4; i++) {
			pthread_kill(thread[i], SIGUSR1);
			pthread_kill(thread[i], SIGCHLD);
		}
		usleep(2000);
	}
	printf("%ld interrupted\n", (long)interrupted);
	return interrupted != 0;
}

static void *breathe(void *unused)
{
	usleep(2000);
	return unused;
}

static int do_births(void)
{
	pthread_t thread;
	long born = 0;

	ready();
	for (; !stopping; born++) {
		if (pthread_create(&thread, NULL, breathe, NULL))
			return 1;
		pthread_detach(thread);
		usleep(1000);
	}
	usleep(10000);
	printf("%ld born\n", born);
	return 0;
}

#ifdef __aarch64__
#define LANES(n) __asm__(".arch_extension sve\n\tcntd %0" : "=r"(n))
#define COMPUTE(sum, rounds)                                                                          \
	__asm__ volatile(".arch_extension sve\n\t"                                                    \
			 "ptrue p0.d\n\t"                                                             \
			 "mov z0.d, #1\n\t"                                                           \
			 "mov z1.d, #0\n"                                                             \
			 "1: add z1.d, p0/m, z1.d, z0.d\n\t"                                          \
			 "subs %1, %1, #1\n\t"                                                        \
			 "b.ne 1b\n\t"                                                                \
			 "ptrue p0.d\n\t"                                                             \
			 "uaddv d0, p0, z1.d\n\t"                                                     \
			 "fmov %0, d0"                                                                \
			 : "=r"(sum), "+r"(rounds)                                                    \
			 :                                                                            \
			 : "v0", "v1", "cc")
#else
#define LANES(n) (n = 1)
#define COMPUTE(sum, rounds)                                                                          \
	__asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n\t"                                                 \
			 "psrlq $63, %%xmm0\n\t"                                                      \
			 "pxor %%xmm1, %%xmm1\n"                                                      \
			 "1: paddq %%xmm0, %%xmm1\n\t"                                                \
			 "decq %1\n\t"                                                                \
			 "jnz 1b\n\t"                                                                 \
			 "movq %%xmm1, %0"                                                            \
			 : "=r"(sum), "+r"(rounds)                                                    \
			 :                                                                            \
			 : "xmm0", "xmm1", "cc")
#endif

/* The sum is built in a vector register whose lanes a lost register would set back. */
static int do_vectors(int endless)
{
	long computed = 0, wrong = 0;
	uint64_t lanes;

#ifdef __aarch64__
	if (!(getauxval(AT_HWCAP) & HWCAP_SVE)) {
		printf("no sve\n");
		return 77;
	}
#endif
	LANES(lanes);
	ready();
	for (; !stopping; computed++) {
		uint64_t sum, rounds = 300000;

		COMPUTE(sum, rounds);
		wrong += sum != lanes * 300000;
		if (!endless)
			usleep(100);
	}
	printf("%ld computed, %ld wrong\n", computed, wrong);
	return wrong != 0;
}

static int do_exec(char **argv)
{
	usleep(3000);
	if (stopping)
		return 0;
	/* SIGTERM has its default between two programs, so the end is the signal or the exit status 0. */
	execv("/proc/self/exe", argv);
	return 1;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	signal(SIGTERM, stop);
	if (!strcmp(what, "vfork"))
		return do_vfork();
	if (!strcmp(what, "filter"))
		return filter(SECCOMP_RET_KILL_PROCESS);
	if (!strcmp(what, "refuse"))
		return filter(SECCOMP_RET_ERRNO | ENOSYS);
	if (!strcmp(what, "handler"))
		return do_handler();
	if (!strcmp(what, "ignored"))
		return do_ignored();
	if (!strcmp(what, "vectors") || !strcmp(what, "endless"))
		return do_vectors(*what == 'e');
	if (!strcmp(what, "births"))
		return do_births();
	if (!strcmp(what, "exec")) {
		char *again[] = { argv[0], "exec", "more", NULL };

		if (argc == 2)
			ready();
		return do_exec(again);
	}
	ready();
	wait_for_the_end();
	printf("alive\n");
	return 0;
}
