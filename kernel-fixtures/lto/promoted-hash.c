// Every promoted name of the unit gets another hash: the unit that imports them is the same code.
//#limit 100
//#file fs/a.c
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
	return sink(n * 5);
}
//#file fs/b.c
extern int small(int);
int holder(int n)
{
	return small(n) * 2;
}
//#edit fs/a.c
-	return sink(n * 5);
+	return sink(n * 6);
//#changed edited
