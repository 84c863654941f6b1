// A static that is always called with the same argument has it built in; the patch calls it with another one.
//# file: fs/a.c
extern int sink(int);
static __attribute__((noinline)) int scaled(int n, int by)
{
	return sink(n * by) + sink(n);
}

int first(int n)
{
	return scaled(n, 3);
}

int second(int n)
{
	return scaled(n + 1, 3);
}
//# edit: fs/a.c
-	return scaled(n, 3);
+	return scaled(n, 4);
//# expect-changed: first second scaled
//# expect-cause: first edited
//# expect-cause: scaled called-by
//# expect-cause: second relies-on
