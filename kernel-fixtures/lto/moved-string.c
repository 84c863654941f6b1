// A string that inline assembly refers to stays in its unit, and its name is one of a row: with another text under the
// same name, who imported the reference has the same code and means something else.
//# file: fs/a.c
extern int sink(long);
int note(int n)
{
	long text;

	asm volatile("movq $%c1, %0" : "=r"(text) : "i"("one"));
	return sink(text);
}
//# file: fs/b.c
extern int note(int n);
int user(int n)
{
	return note(n) * 3;
}
//# edit: fs/a.c
-"i"("one"));
+"i"("two"));
//# expect-changed: note user
//# import-limit: 20
//# expect-cause: note edited
