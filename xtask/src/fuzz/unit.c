/* A unit for the seeds of `cargo xtask fuzz`. */
struct pair { int first; struct { short a : 3, b : 5; } bits; const char *name; };
enum kind { NONE, SOME = 7 };
union both { struct pair pair; enum kind kind; };

static struct pair pairs[3];
static union both kept;
extern int outside(int);
extern int elsewhere(int);

static inline int twice(int n)
{
	return outside(n) * 2 + pairs[n & 1].first;
}

__attribute__((noinline)) static int held(enum kind kind, int n)
{
	return twice(n + kind) - kept.pair.first;
}

int entry(int n)
{
	static int calls;

	pairs[n & 1].bits.b = n;
	return held(SOME, n) + twice(calls++);
}

int chosen(int n)
{
	switch (n) {
	case 1: return outside(5);
	case 2: return outside(3) + 1;
	case 3: return entry(9);
	case 4: return 17;
	case 5: return n * kept.kind;
	case 6: return outside(1);
	default: return 0;
	}
}
