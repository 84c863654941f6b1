// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include "meter.h"

static int calls;

int klpx_meter_read(void)
{
	return klpx_meter_scale(++calls);
}
EXPORT_SYMBOL_GPL(klpx_meter_read);

static int meter_show(struct seq_file *file, void *unused)
{
	seq_printf(file, "calls %d, scale of one %d\n", calls, klpx_meter_scale(1));
	return 0;
}

static int __init meter_init(void)
{
	return proc_create_single("klpx_meter", 0, NULL, meter_show) ? 0 : -ENOMEM;
}

static void __exit meter_exit(void)
{
	remove_proc_entry("klpx_meter", NULL);
}

module_init(meter_init);
module_exit(meter_exit);
MODULE_DESCRIPTION("klpx test: a module of two units");
MODULE_LICENSE("GPL");
