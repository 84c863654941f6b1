// A static variable that nobody wrote gains a writer: its readers had its value built in.
//# file: fs/a.c
extern int sink(int);
static int limit = 7;

int reader(int n)
{
	return sink(n > limit ? limit : n);
}

int setter(int n)
{
	return sink(n);
}
//# edit: fs/a.c
-	return sink(n);
+	limit = n; return sink(n);
//# expect-changed: reader setter
//# expect-cause: setter edited
//# expect-cause: reader otherwise
