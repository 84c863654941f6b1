/* SPDX-License-Identifier: GPL-2.0 */
int klpx_meter_scale(int value);
int klpx_meter_read(void);
