// The patch removes the only call from another unit: a static of the callee's unit is promoted no longer. The unit's code
// stays.
//# file: fs/a.c
extern int sink(int);
extern int far(int);
int entry(int n)
{
	if (n > 3)
		return far(n);
	return sink(n);
}
//# file: fs/b.c
extern int sink(int);
static int work(int n)
{
	int sum = 0;
#define STEP(k) if (sink(n + k)) sum += sink(sum * k) + sink(n ^ k);
#define STEPS(k) STEP(k) STEP(k + 1) STEP(k + 2) STEP(k + 3) STEP(k + 4)
	STEPS(1) STEPS(6) STEPS(11) STEPS(16) STEPS(21) STEPS(26)
	return sum;
}

int far(int n)
{
	return work(n + 1);
}

int near(int n)
{
	return work(n) * 2;
}
//# edit: fs/a.c
-	if (n > 3)
-		return far(n);
-	return sink(n);
+	return sink(n);
//# expect-changed: entry
