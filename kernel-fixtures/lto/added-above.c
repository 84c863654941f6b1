// A function that the patch adds is no edit of the one above, though both end alike: who inlines that one is not told.
//# file: fs/a.c
extern int sink(int);
static int above(int n)
{
	return sink(n + 1);
}

int below(int n)
{
	return above(n) * 3;
}

int user(int n)
{
	return above(n) + sink(n);
}
//# edit: fs/a.c
-int below(int n)
-{
-	return above(n) * 3;
+__attribute__((noinline)) static int added(int n)
+{
+	return sink(n + 1);
+}
+
+int below(int n)
+{
+	return above(n) * 3 + added(n);
//# expect-changed: added below
//# expect-cause: below edited
//# expect-unaffected:
