/* What tools/kernel-types compiles: it only declares things, so that their types are in the object file.
 *
 * The first three are private to the kernel's sources; drgn's helpers know them by these members. They
 * are as in 5.6 to 5.8 (drivers/base/base.h, block/blk-mq-tag.h).
 */
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/cpumask.h>
#include <linux/device.h>
#include <linux/genhd.h>
#include <linux/kallsyms.h>
#include <linux/klist.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/pid_namespace.h>
#include <linux/sbitmap.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <asm/switch_to.h>
#if __has_include(<linux/part_stat.h>)
#include <linux/part_stat.h>
#endif

struct subsys_private {
	struct kset subsys, *devices_kset;
	struct list_head interfaces;
	struct mutex mutex;
	struct kset *drivers_kset;
	struct klist klist_devices, klist_drivers;
	struct blocking_notifier_head bus_notifier;
	unsigned int drivers_autoprobe : 1;
	struct bus_type *bus;
	struct kset glue_dirs;
	struct class *class;
};

struct device_private {
	struct klist klist_children;
	struct klist_node knode_parent, knode_driver, knode_bus, knode_class;
	struct list_head deferred_probe;
	struct device_driver *async_driver;
	struct device *device;
	u8 dead : 1;
};

struct blk_mq_tags {
	unsigned int nr_tags, nr_reserved_tags;
	atomic_t active_queues;
	struct sbitmap_queue bitmap_tags, breserved_tags;
	struct request **rqs, **static_rqs;
	struct list_head page_list;
};

struct {
	struct task_struct task;
	struct pid_namespace namespace;
	struct pid pid;
	struct xa_node node;
	struct module module;
	struct mod_kallsyms symbols;
	struct inactive_task_frame inactive;
	struct fork_frame forked;
	struct subsys_private subsystem;
	struct device_private device;
	struct class class;
	struct gendisk disk;
	struct hd_struct part;
	struct disk_stats statistics;
	struct request request;
	struct blk_mq_tags tags;
	struct blk_mq_tag_set set;
	struct blk_mq_hw_ctx context;
	struct elevator_queue *elevator;
	struct cpumask mask;
	atomic_long_t counter;
	enum node_stat_item node_item;
	enum zone_stat_item zone_item;
	enum pid_type pid_type;
} wanted;
int blk_mq_flags = BLK_MQ_F_TAG_SHARED;
