// What the patch edits is inlined into a static, and that into functions of both units: each says by way of what.
//#limit 100
//#file fs/a.c
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
//#file fs/b.c
extern int outer(int);
int foreign(int n)
{
	return outer(n) * 2;
}

int bystander(int n)
{
	return n * 3;
}
//#edit fs/a.c
-	return sink(n + 1) * 3;
+	return sink(n + 2) * 3;
//#changed outer local foreign
//#cause outer inlines
//#cause foreign inlines
//#why outer inlines inner at fs/a.c:9
//#why local inlines inner at fs/a.c:9 by way of outer at fs/a.c:14
//#why foreign inlines inner at fs/a.c:9 by way of outer at fs/b.c:4
