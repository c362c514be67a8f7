/*
 * Threads that count in restartable sequences: read a counter of the CPU, spin, write it back plus one.
 * Whoever is taken out of the sequence must start it again, or counts are lost.
 *
 * usage: rseq THREADS
 *
 * Prints "ready"; on SIGTERM stops and prints the threads' sum and the counters' sum, which must be the same.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/rseq.h>
#include <unistd.h>

#define CPUS 256

#ifdef __x86_64__
#define JUMP "jmp"
#define SCRATCH "rax", "rbx", "rcx"
#elif defined __aarch64__
#define JUMP "b"
#define SCRATCH "x13", "x14"
#endif

static atomic_int stopping;
static struct { long count; char pad[56]; } counters[CPUS];

static struct rseq *area(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/* One attempt; 1 when it counted. */
static int count_once(struct rseq *rs)
{
	uint32_t cpu = rs->cpu_id_start;
	long *counter = &counters[cpu].count;

	__asm__ goto(
		".pushsection __rseq_cs, \"aw\"\n\t"
		".balign 32\n\t"
		"3: .long 0, 0\n\t"
		".quad 1f, 2f - 1f, 4f\n\t"
		".popsection\n\t"
#ifdef __x86_64__
		"leaq 3b(%%rip), %%rax\n\t"
		"movq %%rax, %c[cs](%[rs])\n\t"
		"1:\n\t"
		"cmpl %[cpu], %c[id](%[rs])\n\t"
		"jnz 4f\n\t"
		"movq (%[counter]), %%rbx\n\t"
		"movl $300, %%ecx\n\t"
		"5: decl %%ecx\n\t"
		"jnz 5b\n\t"
		"incq %%rbx\n\t"
		"movq %%rbx, (%[counter])\n\t"
		"2:\n\t"
		"jmp %l[done]\n\t"
#else
		"adrp x13, 3b\n\t"
		"add x13, x13, :lo12:3b\n\t"
		"str x13, [%[rs], %c[cs]]\n\t"
		"1:\n\t"
		"ldr w13, [%[rs], %c[id]]\n\t"
		"cmp w13, %w[cpu]\n\t"
		"b.ne 4f\n\t"
		"ldr x14, [%[counter]]\n\t"
		"mov x13, #300\n\t"
		"5: subs x13, x13, #1\n\t"
		"b.ne 5b\n\t"
		"add x14, x14, #1\n\t"
		"str x14, [%[counter]]\n\t"
		"2:\n\t"
		"b %l[done]\n\t"
#endif
		".pushsection __rseq_failure, \"ax\"\n\t"
		".long %c[signature]\n\t"
		"4:\n\t"
		JUMP " %l[aborted]\n\t"
		".popsection\n\t"
		:
		: [rs] "r"(rs), [cpu] "r"(cpu), [counter] "r"(counter),
		  [cs] "i"(offsetof(struct rseq, rseq_cs)), [id] "i"(offsetof(struct rseq, cpu_id)),
		  [signature] "i"(RSEQ_SIG)
		: SCRATCH, "memory", "cc"
		: done, aborted);
done:
	return 1;
aborted:
	return 0;
}

static void *work(void *argument)
{
	long *sum = argument;
	struct rseq *rs = area();

	while (!stopping)
		*sum += count_once(rs);
	return NULL;
}

static void stop(int number)
{
	(void)number;
	stopping = 1;
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 2;
	pthread_t thread[threads];
	long sums[threads], counted = 0, total = 0;

	if (__rseq_size == 0) {
		printf("no rseq\n");
		return 77;
	}
	signal(SIGTERM, stop);
	for (int i = 0; i < threads; i++) {
		sums[i] = 0;
		pthread_create(&thread[i], NULL, work, &sums[i]);
	}
	printf("ready\n");
	fflush(stdout);
	while (!stopping)
		usleep(10000);
	for (int i = 0; i < threads; i++) {
		pthread_join(thread[i], NULL);
		counted += sums[i];
	}
	for (int i = 0; i < CPUS; i++)
		total += counters[i].count;
	printf("%ld %ld\n", counted, total);
	return counted != total;
}
