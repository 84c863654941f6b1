// What the patch edits is inlined into a static, and that into functions of both units: each says by way of what.
//# import-limit: 100
//# file: fs/a.c
extern int sink(int);
static int inner(int n)
{
	return sink(n + 1) * 3;
}

int outer(int n)
{
	return inner(n) - 5;
}

int local(int n)
{
	return outer(n) ^ 9;
}
//# file: fs/b.c
extern int outer(int);
int foreign(int n)
{
	return outer(n) * 2;
}

int bystander(int n)
{
	return n * 3;
}
//# edit: fs/a.c
-	return sink(n + 1) * 3;
+	return sink(n + 2) * 3;
//# expect-changed: outer local foreign
//# expect-cause: outer inlines
//# expect-cause: foreign inlines
//# expect-why: outer inlines inner at fs/a.c:9
//# expect-why: local inlines inner at fs/a.c:9 by way of outer at fs/a.c:14
//# expect-why: foreign inlines inner at fs/a.c:9 by way of outer at fs/b.c:4
