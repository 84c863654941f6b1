// A static that never came back does now: nothing stood behind the call in its caller.
//# file: fs/a.c
extern int sink(int);
static __attribute__((noinline)) void stop(int n)
{
	for (;;)
		sink(n);
}

int caller(int n)
{
	if (n > 4)
		stop(n);
	return sink(n);
}
//# edit: fs/a.c
-	for (;;)
+	while (sink(n + 1))
//# expect-changed: caller stop
//# expect-cause: stop edited
//# expect-cause: caller relies-on
