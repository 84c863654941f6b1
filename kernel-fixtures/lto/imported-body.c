// Another unit holds an inlined copy of what the patch changes.
//# import-limit: 100
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

int bystander(int n)
{
	return n * 3;
}
//# edit: fs/a.c
-	return sink(n + 1);
+	return sink(n + 2);
//# expect-changed: small holder
//# expect-cause: small edited
//# expect-cause: holder inlines
