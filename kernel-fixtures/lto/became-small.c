// What the patch changes becomes small: a unit that the patch does not touch could inline it now, and goes on calling it.
//# file: fs/a.c
extern int sink(int);
int entry(int n)
{
	for (int i = 0; i < n; i++)
		n += sink(i) * sink(n - i) - sink(7);
	return n + sink(2);
}
//# file: fs/b.c
extern int sink(int);
extern int entry(int);
int caller(int n)
{
	return sink(entry(n)) * 2;
}
//# edit: fs/a.c
-	for (int i = 0; i < n; i++)
-		n += sink(i) * sink(n - i) - sink(7);
-	return n + sink(2);
+	return sink(n);
//# expect-changed: entry
//# expect-changed-off: entry caller
//# expect-frozen: 1
