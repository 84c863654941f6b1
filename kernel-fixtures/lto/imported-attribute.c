// A function that is too large to be imported no longer is free of writes: units that import its callers know its attributes.
//# file: fs/a.c
extern int sink(int);
int state;
__attribute__((noinline)) int large(const int *from)
{
	int sum = 0;
	for (int i = 0; i < 64 && from[i]; i++)
		sum += from[i] * from[i + 1] + (from[i + 2] ^ from[i + 3]) + from[i + 4] / 3;
	return sum;
}

int small(const int *from)
{
	return large(from);
}
//# file: fs/b.c
extern int sink(int);
extern int small(const int *);
extern int state;
int holder(int n, const int *from)
{
	int before = state;
	int sum = small(from);
	return before == state ? sum : sink(n);
}
//# edit: fs/a.c
-		sum += from[i] * from[i + 1] + (from[i + 2] ^ from[i + 3]) + from[i + 4] / 3;
+		sum += from[i] * from[i + 1] + (from[i + 2] ^ from[i + 3]) + from[i + 4] / 3, state++;
//# expect-changed: holder large
//# expect-cause: large edited
//# expect-cause: holder relies-on
