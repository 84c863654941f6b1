// A static that wrote nothing now does: its caller kept a value over the call.
//# file: fs/a.c
extern int sink(int);
int state;
static __attribute__((noinline)) int peek(const int *from)
{
	int sum = 0;
	for (int i = 0; i < 64 && from[i]; i++)
		sum += from[i];
	return sum;
}

int caller(int n, const int *from)
{
	int before = state;
	int sum = peek(from);
	return before == state ? sum : sink(n);
}
//# edit: fs/a.c
-		sum += from[i];
+		sum += from[i], state++;
//# expect-changed: caller peek
//# expect-cause: peek edited
//# expect-cause: caller relies-on
