// SPDX-License-Identifier: GPL-2.0
#include <linux/kernel.h>
#include "meter.h"

static int limit = 100;

int klpx_meter_scale(int value)
{
	return min(value * 2, limit);
}
