// A static's return value stops being constant: its caller, whose source is the same, tested for no error before.
//# file: fs/a.c
extern int sink(int);
static __attribute__((noinline)) int check(int n)
{
	sink(n);
	return 0;
}

int caller(int n)
{
	if (check(n))
		return sink(1);
	return sink(2);
}

int bystander(int n)
{
	return sink(n + 3);
}
//# edit: fs/a.c
-	sink(n);
-	return 0;
+	return sink(n) + 1;
//# expect-changed: check caller
//# expect-cause: check edited
//# expect-cause: caller relies-on
