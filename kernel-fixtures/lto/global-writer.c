// A global gains its first writer. Its readers in other units never had its value built in: a relocatable link keeps globals.
//# file: fs/a.c
extern int sink(int);
int ceiling = 9;

int setter(int n)
{
	return sink(n);
}
//# file: fs/b.c
extern int sink(int);
extern int ceiling;

int reader(int n)
{
	return sink(n > ceiling ? ceiling : n);
}
//# edit: fs/a.c
-	return sink(n);
+	ceiling = n; return sink(n);
//# expect-changed: setter
