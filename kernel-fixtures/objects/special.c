/* Functions with the special sections of an x86_64 kernel, for tests of the comparison. */
typedef unsigned long u64;

extern int outside(int);
extern u64 shared_key, other_key;
int counter, limit = 7;
static int hidden;
static const char *const names[] = { "alpha", "beta", "gamma" };

#define BUG_ENTRY(line)                                                        \
	asm volatile("1: ud2\n"                                                \
		     ".pushsection __bug_table,\"aw\"\n"                       \
		     ".long 1b - .\n.long 0\n.long bug_file - .\n"             \
		     ".word " #line "\n.word 1\n"                              \
		     ".popsection\n"                                           \
		     ".pushsection .rodata.str1.1,\"aMS\",@progbits,1\n"       \
		     ".popsection\n")
const char bug_file[] = "special.c";

#define JUMP_LABEL(key)                                                        \
	asm goto("1: .byte 0x0f,0x1f,0x44,0x00,0x00\n"                         \
		 ".pushsection __jump_table,\"aw\"\n.balign 8\n"               \
		 ".long 1b - .\n.long %l0 - .\n.quad " #key " - .\n"           \
		 ".popsection\n" : : : : taken)

#define EX_ENTRY()                                                             \
	asm volatile("1: movq (%0), %%rax\n2:\n"                               \
		     ".pushsection __ex_table,\"a\"\n"                         \
		     ".long 1b - .\n.long 2b - .\n.long 3\n"                   \
		     ".popsection\n" : : "r"(&hidden) : "rax")

#define ALTERNATIVE(feature)                                                   \
	asm volatile("1: nop\nnop\nnop\n2:\n"                                  \
		     ".pushsection .altinstructions,\"a\"\n"                   \
		     ".long 1b - .\n.long 3f - .\n.long " #feature "\n"        \
		     ".byte 2b-1b\n.byte 4f-3f\n.popsection\n"                 \
		     ".pushsection .altinstr_replacement,\"ax\"\n"             \
		     "3: stac\n4:\n.popsection\n")

int warns(int n)
{
	if (n > limit)
		BUG_ENTRY(17);
	return outside(n) + counter;
}

int branches(int n)
{
	JUMP_LABEL(shared_key);
	return n;
taken:
	return outside(n + 1);
}

int reads(int n)
{
	EX_ENTRY();
	hidden += n;
	return hidden;
}

int alternates(int n)
{
	ALTERNATIVE(0x123);
	return n * 3 + outside(hidden);
}

const char *name_of(int n)
{
	return n < 3 ? names[n] : "unknown";
}

static __attribute__((noinline)) int inner(int n)
{
	return outside(n ^ 5) + counter++;
}

int plain(int n)
{
	return inner(n) + inner(n + 1);
}

int many(int n)
{
	switch (n & 3) {
	case 0: return warns(n);
	case 1: return branches(n);
	case 2: return reads(n);
	}
	return alternates(n);
}

int (*const table[])(int) = { warns, branches, reads };
