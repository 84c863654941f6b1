// The patch makes the only call of a static unlikely, which the inliner then leaves alone.
//# file: fs/a.c
extern int sink(int);
static int work(int n)
{
	int sum = 0;
#define STEP(k) if (sink(n + k)) sum += sink(sum * k) + sink(n ^ k);
#define STEPS(k) STEP(k) STEP(k + 1) STEP(k + 2) STEP(k + 3) STEP(k + 4)
	STEPS(1) STEPS(6) STEPS(11) STEPS(16) STEPS(21) STEPS(26)
	return sum;
}

int entry(int n)
{
	if (n > 1000)
		return -1;
	return work(n);
}
//# edit: fs/a.c
-	if (n > 1000)
+	if (n == 5 || __builtin_expect(n < 1000, 1))
//# expect-changed: entry
//# expect-changed-off: entry work
//# expect-cause: entry edited
