// The patch edits a branch that one caller never takes: the code of that caller is the same, and right as it is.
//# import-limit: 100
//# file: fs/a.c
extern int sink(int);
int choose(int n, int verbose)
{
	if (verbose)
		return sink(n + 1);
	return sink(n) * 3;
}

int loud(int n)
{
	return choose(n, 1) - 5;
}

int quiet(int n)
{
	return choose(n, 0) + 2;
}
//# file: fs/b.c
extern int choose(int, int);
int foreign(int n)
{
	return choose(n, 0) * 2;
}
//# edit: fs/a.c
-		return sink(n + 1);
+		return sink(n + 4);
//# expect-changed: choose loud
//# expect-cause: choose edited
//# expect-cause: loud inlines
//# expect-unaffected: quiet foreign
