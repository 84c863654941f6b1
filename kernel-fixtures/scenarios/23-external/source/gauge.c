// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include "meter.h"

static int gauge_show(struct seq_file *file, void *unused)
{
	seq_printf(file, "%d\n", klpx_meter_read());
	return 0;
}

static int __init gauge_init(void)
{
	return proc_create_single("klpx_gauge", 0, NULL, gauge_show) ? 0 : -ENOMEM;
}

static void __exit gauge_exit(void)
{
	remove_proc_entry("klpx_gauge", NULL);
}

module_init(gauge_init);
module_exit(gauge_exit);
MODULE_DESCRIPTION("klpx test: it uses an export of another module");
MODULE_LICENSE("GPL");
