// A function that is too large to be imported is all the same, because it must be inlined: the unit can't keep the original's hash.
//# file: fs/a.c
extern int sink(int);
__attribute__((always_inline)) int forced(int n)
{
	return sink(n) + sink(n * 3) + sink(n * 4) + sink(n * 7) + sink(n * 5) + sink(n ^ 9) + sink(n - 7);
}
//# file: fs/b.c
extern int forced(int);
int holder(int n)
{
	return forced(n) * 2;
}
//# edit: fs/a.c
-	return sink(n) + sink(n * 3) + sink(n * 4) + sink(n * 7) + sink(n * 5) + sink(n ^ 9) + sink(n - 7);
+	return sink(n) + sink(n * 3) + sink(n * 4) + sink(n * 7) + sink(n * 5) + sink(n ^ 9) + sink(n - 8);
//# expect-changed: forced holder
//# expect-cause: holder inlines
