// The other unit imports what is the same in both builds: with the original's hash kept, its object is the original's.
//# file: fs/a.c
extern int sink(int);
static __attribute__((noinline)) int helper(int n)
{
	return sink(n) + sink(n + 1) + sink(n + 2);
}

int small(int n)
{
	return helper(n + 1);
}

int edited(int n)
{
	return sink(n) + sink(n * 3) + sink(n * 4) + sink(n * 7) + sink(n * 5);
}
//# file: fs/b.c
extern int small(int);
int holder(int n)
{
	return small(n) * 2;
}
//# edit: fs/a.c
-	return sink(n) + sink(n * 3) + sink(n * 4) + sink(n * 7) + sink(n * 5);
+	return sink(n) + sink(n * 3) + sink(n * 4) + sink(n * 7) + sink(n * 6);
//# expect-changed: edited
//# expect-frozen: 1
//# expect-cause: edited edited
