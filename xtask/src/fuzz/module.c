/* A livepatch of one function, for the seeds of `cargo xtask fuzz`: the arrays, and a livepatch reference. */
struct func { const char *old_name; void *new_func; unsigned long position, rest[4]; };
struct object { const char *name; struct func *funcs; void *callbacks[4]; unsigned long rest[4]; };
struct patch { void *module; struct object *objects; void *states; _Bool replace; };

struct { char name[64]; } __this_module __attribute__((section(".gnu.linkonce.this_module"))) = { "livepatch" };
static const char info[] __attribute__((used, section(".modinfo"))) = "license=GPL\0livepatch=Y\0vermagic=6.12";

static int replaced(int n)
{
	int result;

	asm volatile("call \".klpx.vmlinux!.klp.sym.vmlinux.shipped,1\"" : "=a"(result) : "D"(n));
	return result + 1;
}

static struct func funcs[] = { { "shipped", replaced, 1 }, { 0 } };
static struct object objects[] = { { 0, funcs }, { 0 } };
struct patch patch __attribute__((used)) = { &__this_module, objects };
