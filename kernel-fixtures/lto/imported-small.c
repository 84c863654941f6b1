// What the patch changes is small enough to be imported: the unit can't keep the original's hash.
//# file: fs/a.c
extern int sink(int);
int small(int n)
{
	return sink(n + 1);
}
//# file: fs/b.c
extern int small(int);
int holder(int n)
{
	return small(n) * 2;
}
//# edit: fs/a.c
-	return sink(n + 1);
+	return sink(n + 2);
//# expect-changed: small holder
