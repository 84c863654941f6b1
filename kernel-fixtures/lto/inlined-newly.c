// The patch removes one of two calls of a static: the inliner copies the static into the other caller, which nobody edited.
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

int first(int n)
{
	return work(n) + 1;
}

int second(int n)
{
	return work(n) * 3;
}
//# edit: fs/a.c
-	return work(n) + 1;
+	return sink(n) + 1;
//# expect-changed: first
//# expect-cause: first edited
//# expect-changed-off: first second
//# expect-cause-off: second inlines-otherwise
