using NopeGpt.Jobs.Queue;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Tests.Queue.Devices;

public sealed class DevicePoolTests : IDisposable
{
    private static readonly RunConfig Small = new()
    {
        Data = new DataConfig { Dataset = "nothing" },
        Model = new ModelConfig { VocabularySize = 4096, EmbeddingDimensions = 192, NumQHeads = 6, NumKvHeads = 2, NumDecoderLayers = 4 },
        Training = new TrainingConfig { MaxSteps = 10, GradientAccumulationSteps = 8, ShardingLevel = 0 },
    };

    private readonly FakeHost host = new();
    private int made;

    public void Dispose() => host.Dispose();

    [Fact]
    public void The_devices_are_listed_with_what_is_known_of_them()
    {
        host.Gpus(FakeHost.Gpu(0), "1, GPU-b, NVIDIA A100, [N/A], [N/A], [N/A], 77, [N/A]");
        Assert.Equal(
            [
                new DeviceView("cuda:0", "cuda", "NVIDIA Test", 24_000L << 20, 23_000L << 20, 5, 41, 60.25),
                new DeviceView("cuda:1", "cuda", "NVIDIA A100", null, null, null, 77, null),
                new DeviceView("cpu", "cpu", "Test Processor 3000", 16_000_000L * 1024, 8_000_000L * 1024, null, null, null),
            ], host.Pool().List());
    }

    [Theory]
    [InlineData("auto", "cuda:0")]
    [InlineData("cuda", "cuda:0")]
    [InlineData("cuda:1", "cuda:1")]
    [InlineData("cuda:001", "cuda:1")]
    [InlineData("cuda:1,cuda:0", "cuda:1,cuda:0")]
    [InlineData("cuda*2", "cuda:0,cuda:1")]
    [InlineData("cpu", "cpu")]
    [InlineData("cpu,cpu", "cpu,cpu")]
    public void A_run_gets_what_it_asks_for(string asks, string gets)
    {
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1));
        DeviceAnswer answer = host.Pool().Find(Run(asks), []);
        Assert.Equal((gets, null), (string.Join(',', answer.Devices), answer.Reason));
    }

    [Fact]
    public void Auto_takes_the_cpu_only_where_there_are_no_gpus()
    {
        DevicePool pool = host.Pool();
        host.Gpus(FakeHost.Gpu(0));
        RunRow first = Given(Run("auto"), "cuda:0");
        Assert.Equal("waiting: cuda:0 is busy with run Run 1 (pretrain, 43 %)", pool.Find(Run("auto"), [first]).Reason);
        Assert.Equal(["cpu"], host.Pool(visible: "").Find(Run("auto"), [first]).Devices);
    }

    [Theory]
    [InlineData("cuda:3", "waiting: cuda:3 is not there: this machine has cuda:0, cuda:1 and cuda:2")]
    [InlineData("cuda:3,cuda:0,cuda:4", "waiting: cuda:3 and cuda:4 are not there: this machine has cuda:0, cuda:1 and cuda:2")]
    [InlineData("cuda*5", "waiting: 5 GPUs are needed and this machine has 3 (cuda:0, cuda:1 and cuda:2)")]
    [InlineData("cuda:1", "waiting: cuda:1 is busy with run Run 1 (pretrain, 43 %)")]
    [InlineData("cuda:0,cuda:1,cuda:2", "waiting: cuda:1 is busy with run Run 1 (pretrain, 43 %) and cuda:2 is busy with run Run 1 (pretrain, 43 %)")]
    [InlineData("cuda*2", "waiting: 2 free GPUs are needed and 1 is free (cuda:1 is busy with run Run 1, cuda:2 is busy with run Run 1)")]
    [InlineData("gpu", "waiting: device gpu is not a device: use auto, cpu, cuda, cuda:0, several joined by commas, such as cuda:0,cuda:1, or cuda*2 for any two free GPUs")]
    [InlineData("cpu,cuda:0", "waiting: device cpu,cuda:0 mixes CPU and GPUs: it needs devices of one kind")]
    public void Why_it_waits_is_said(string asks, string reason)
    {
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1), FakeHost.Gpu(2));
        RunRow other = Given(Run("cuda:1,cuda:2"), "cuda:1,cuda:2");
        DeviceAnswer answer = host.Pool().Find(Run(asks), [other]);
        Assert.Equal((reason, 0), (answer.Reason, answer.Devices.Count));
    }

    [Theory]
    [InlineData("cuda", "waiting: a GPU is needed and this machine has none")]
    [InlineData("cuda*2", "waiting: 2 GPUs are needed and this machine has none")]
    [InlineData("cuda:0", "waiting: cuda:0 is not there: this machine has no GPU")]
    public void A_machine_without_gpus_says_so(string asks, string reason)
    {
        host.Gpus(FakeHost.Gpu(0));
        Assert.Equal(reason, host.Pool(visible: "-1").Find(Run(asks), []).Reason);
        host.Script("exit 3");
        Assert.Equal($"{reason} ({host.NvidiaSmi} ended with code 3 and said: nothing)", host.Pool().Find(Run(asks), []).Reason);
    }

    [Fact]
    public void Gpus_that_are_not_known_for_a_while_are_waited_for()
    {
        host.Gpus(FakeHost.Gpu(0));
        DevicePool pool = host.Pool();
        Assert.Equal(["cuda:0"], pool.Find(Run("auto"), []).Devices);
        host.Script("exit 3");
        host.Time.Pass(3);
        Assert.Equal($"waiting: this machine's GPUs are not known now ({host.NvidiaSmi} ended with code 3 and said: nothing)", pool.Find(Run("auto"), []).Reason);
        Assert.Equal(["cpu"], pool.Find(Run("cpu"), []).Devices);
    }

    [Fact]
    public void A_gpu_without_room_for_the_estimate_is_passed_over_and_taken_when_it_has_room()
    {
        RunRow run = Run("cuda");
        double need = Need(cpu: false) / (double)(1 << 20);
        host.Gpus(FakeHost.Gpu(0, free: need - 1), FakeHost.Gpu(1, free: need + 1));
        DevicePool pool = host.Pool();
        Assert.Equal(["cuda:1"], pool.Find(run, []).Devices);
        host.Gpus(FakeHost.Gpu(0, free: 100));
        host.Time.Pass(3);
        Assert.Equal($"waiting: cuda:0 has 0.1 of {need * (1 << 20) / 1e9:0.0} GB free that it needs", pool.Find(run, []).Reason);
        host.Gpus(FakeHost.Gpu(0, free: 100), FakeHost.Gpu(1, free: 200));
        host.Time.Pass(3);
        Assert.Equal($"waiting: a free GPU is needed and none is free (cuda:0 has 0.1 of {need * (1 << 20) / 1e9:0.0} GB free that it needs, cuda:1 has 0.2 of {need * (1 << 20) / 1e9:0.0} GB free that it needs)", pool.Find(run, []).Reason);
        host.Gpus(FakeHost.Gpu(0, free: need + 1));
        host.Time.Pass(3);
        Assert.Equal(["cuda:0"], pool.Find(run, []).Devices);
    }

    [Fact]
    public void A_run_that_will_never_fit_is_told_what_to_change()
    {
        RunConfig huge = Small with { Model = Small.Model with { EmbeddingDimensions = 9216, NumQHeads = 96, NumKvHeads = 96, NumDecoderLayers = 96 } };
        string needs(bool cpu) => $"{RunMemory.Of(huge, [], host.Store, cpu) / 1e9:0.0} GB";
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1));
        DevicePool pool = host.Pool();
        const string Gpus = "use a smaller training.batch_size, training.activation_checkpointing, or more devices with training.sharding_level 2 or 3";
        foreach (string asks in new[] { "cuda", "cuda:0", "auto" })
            Assert.Equal($"waiting: it needs {needs(false)} of memory and cuda:0 has 25.2 GB in all, so that it will never fit: {Gpus}", pool.Find(Run(asks, huge), []).Reason);
        Assert.Equal($"waiting: it needs {needs(true)} of memory and the CPU has 16.4 GB in all, so that it will never fit: use a smaller training.batch_size, training.activation_checkpointing, or a smaller model", pool.Find(Run("cpu", huge), []).Reason);
    }

    [Fact]
    public void One_gpu_that_is_large_enough_is_waited_for_beside_small_ones()
    {
        double need = Need(cpu: false) / (double)(1 << 20);
        host.Gpus(FakeHost.Gpu(0, total: need - 1, free: need - 1), FakeHost.Gpu(1));
        DevicePool pool = host.Pool();
        Assert.Equal(["cuda:1"], pool.Find(Run("cuda"), []).Devices);
        RunRow other = Given(Run("cuda:1"), "cuda:1");
        Assert.Equal($"waiting: a free GPU is needed and none is free (cuda:0 is too small, cuda:1 is busy with run {other.Name})", pool.Find(Run("cuda"), [other]).Reason);
        Assert.Contains("so that it will never fit", pool.Find(Run("cuda*2"), []).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void What_cannot_be_estimated_waits_for_the_device_alone()
    {
        host.Gpus(FakeHost.Gpu(0, free: 1));
        RunConfig unknown = Small with { Model = Small.Model with { VocabularySize = 0 } };
        Assert.Equal(["cuda:0"], host.Pool().Find(Run("auto", unknown), []).Devices);
        RunRow without = Run("auto");
        Directory.Delete(host.Store.RunFolder(without.Id), recursive: true);
        Assert.Equal(["cuda:0"], host.Pool().Find(without, []).Devices);
    }

    [Fact]
    public void The_cpu_has_as_many_runs_as_slots()
    {
        RunRow first = Given(Run("cpu"), "cpu"), second = Given(Run("cpu,cpu"), "cpu,cpu"), next = Run("cpu");
        Assert.Equal("waiting: the CPU is busy with run Run 1 (pretrain, 43 %)", host.Pool().Find(next, [first]).Reason);
        DevicePool two = host.Pool(cpuSlots: 2);
        Assert.Equal(["cpu"], two.Find(next, [first]).Devices);
        Assert.Equal(["cpu"], two.Find(next, [second]).Devices);
        Assert.Equal("waiting: the CPU's 2 slots are busy with run Run 1 (pretrain, 43 %) and run Run 2 (pretrain, 43 %)", two.Find(next, [first, second]).Reason);
        Assert.Equal("waiting: the CPU of this machine takes no runs (Jobs:CpuSlots = 0)", host.Pool(cpuSlots: 0).Find(next, []).Reason);
        Assert.Equal("waiting: the CPU of this machine takes no runs (Jobs:CpuSlots = 0)", host.Pool(cpuSlots: 0, visible: "").Find(Run("auto"), []).Reason);
    }

    [Fact]
    public void The_machines_memory_counts_with_what_runs_that_have_just_begun_will_take()
    {
        long need = Need(cpu: true) / 1024;
        RunRow first = Given(Run("cpu"), "cpu"), next = Run("cpu");
        DevicePool pool = host.Pool(cpuSlots: 3);
        host.Memory(16_000_000, need - 2);
        Assert.Equal($"waiting: the CPU has {Words.Gigabytes((need - 2) * 1024, Need(cpu: true))} free that it needs", pool.Find(next, []).Reason);
        host.Memory(16_000_000, need + 2);
        Assert.Equal(["cpu"], pool.Find(next, []).Devices);
        Assert.Equal($"waiting: the CPU has 0.0 of {Need(cpu: true) / 1e9:0.0} GB free that it needs", pool.Find(next, [first]).Reason);
        host.Write("proc/77/status", $"VmPeak:\t 1 kB\nVmRSS:\t {need + 5} kB\n");
        first.ProcessId = 77;
        Assert.Equal(["cpu"], pool.Find(next, [first]).Devices);
    }

    [Fact]
    public void Replicas_on_the_cpu_share_its_memory()
    {
        RunConfig three = Small with { Device = "cpu,cpu,cpu" };
        long one = Need(cpu: true) - RunMemory.CpuOverhead, several = RunMemory.Of(three, [], host.Store, cpu: true)!.Value - RunMemory.CpuOverhead;
        Assert.InRange(several, 3 * one, 4 * one);
    }

    [Fact]
    public void Preparation_has_a_place_of_its_own()
    {
        DevicePool pool = host.Pool();
        RunRow training = Given(Run("cpu"), "cpu"), words = Run("auto", Small with { Kind = RunKind.Tokenizer }), set = Run("cuda:7", Small with { Kind = RunKind.Prepare });
        Assert.Equal(["preparation"], pool.Find(words, [training]).Devices);
        Assert.Equal("waiting: the place for preparation is busy with run Run 2 (tokenizer, 43 %)", pool.Find(set, [Given(words, "preparation"), training]).Reason);
        Assert.Equal("preparation", pool.For(set).Queue);
        Assert.Empty(pool.TrainerOptions(words));
    }

    [Fact]
    public void A_run_that_a_person_started_has_what_it_takes_by_itself()
    {
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1));
        DevicePool pool = host.Pool();
        Assert.Equal(["cuda:0"], pool.DevicesOf(Given(Run("auto"), "")));
        Assert.Equal(["cuda:0", "cuda:1"], pool.DevicesOf(Given(Run("cuda*2"), "")));
        Assert.Equal(["cuda:1"], pool.DevicesOf(Given(Run("cuda:1"), "")));
        Assert.Equal(["cpu"], pool.DevicesOf(Given(Run("cpu,cpu"), "")));
        Assert.Equal(["cuda:1"], pool.Find(Run("auto"), [Given(Run("auto"), "")]).Devices);
        Assert.Empty(pool.DevicesOf(Run("cpu")));
    }

    [Fact]
    public void What_another_host_works_on_takes_nothing_here()
    {
        DevicePool pool = host.Pool(shared: true);
        RunRow training = Given(Run("cpu"), "cpu"), words = Given(Run("auto", Small with { Kind = RunKind.Tokenizer }), "preparation");
        training.Host = words.Host = "two";
        Assert.Empty(pool.DevicesOf(training));
        Assert.Equal(["cpu"], pool.Find(Run("cpu"), [training, words]).Devices);
        Assert.Equal(["preparation"], pool.Find(Run("cpu", Small with { Kind = RunKind.Prepare }), [training, words]).Devices);
        training.Host = words.Host = "one";
        Assert.Equal(["cpu"], pool.DevicesOf(training));
        Assert.StartsWith("waiting: the CPU is busy", pool.Find(Run("cpu"), [training, words]).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_run_that_needs_several_keeps_the_free_ones_so_that_it_comes_to_its_turn()
    {
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1), FakeHost.Gpu(2));
        DevicePool pool = host.Pool();
        RunRow both = Run("cuda*2"), working = Given(Run("cuda*2"), "cuda:0,cuda:1"), one = Run("cuda");
        DeviceAnswer answer = pool.Find(both, [working]);
        Assert.Equal(["cuda:2"], answer.Kept);
        Dictionary<string, RunRow> kept = answer.Kept.ToDictionary(d => d, _ => both);
        Assert.Equal("waiting: a free GPU is needed and none is free (cuda:0 is busy with run Run 2, cuda:1 is busy with run Run 2, cuda:2 is kept for run Run 1, which comes before it)", pool.Find(one, [working], kept).Reason);
        Assert.Equal(["cuda:2"], pool.Find(one, [working]).Devices);

        // What another program holds may never come free: nothing stands still for it.
        host.Gpus(FakeHost.Gpu(0, free: 10), FakeHost.Gpu(1, free: 10), FakeHost.Gpu(2));
        host.Time.Pass(3);
        Assert.Empty(pool.Find(both, []).Kept);
        Assert.Empty(pool.Find(one, [working]).Kept);
    }

    [Fact]
    public void Trainers_are_told_their_devices_and_threads()
    {
        DevicePool pool = host.Pool(threads: 3);
        Assert.Equal(["--device", "cuda:1,cuda:0", "--threads", "3"], pool.TrainerOptions(Given(Run("cuda*2"), "cuda:1,cuda:0")));
        Assert.Equal(["--device", "cpu"], pool.TrainerOptions(Given(Run("cpu", Small with { Threads = 2 }), "cpu")));
        Assert.Equal(["--device", "cpu"], host.Pool().TrainerOptions(Given(Run("cpu"), "cpu")));
    }

    [Fact]
    public void Each_device_has_a_queue_of_a_name_that_hangfire_takes()
    {
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1));
        DevicePool pool = host.Pool(cpuSlots: 3);
        List<DeviceSlot> added = [];
        pool.SlotAdded += added.Add;
        Assert.Equal([new DeviceSlot("preparation", 1), new DeviceSlot("cpu", 3)], pool.Slots);
        Assert.Equal("cuda1", pool.For(Given(Run("cuda:1,cuda:0"), "cuda:1,cuda:0")).Queue);
        Assert.Equal([new DeviceSlot("cuda1", 1)], added);
        Assert.Equal(["one-preparation", "one-cpu"], host.Pool(shared: true).Slots.Select(s => s.Queue));
    }

    private RunRow Run(string device, RunConfig? config = null)
    {
        RunConfig whole = (config ?? Small) with { Device = device, Name = $"Run {++made}" };
        RunRecord record = new(RunRecord.CurrentFormat, $"20260101-000000-{made:0000}", DateTimeOffset.UnixEpoch, [], whole);
        RunFolder.Create(host.Store, record);
        return new RunRow { Id = record.Id, Name = whole.Name, Kind = whole.Kind, Device = device, State = RunState.Queued };
    }

    private static RunRow Given(RunRow row, string devices)
    {
        (row.State, row.Devices, row.Step, row.MaxSteps) = (RunState.Running, devices, 43, 100);
        return row;
    }

    private long Need(bool cpu) => RunMemory.Of(Small, [], host.Store, cpu)!.Value;
}
