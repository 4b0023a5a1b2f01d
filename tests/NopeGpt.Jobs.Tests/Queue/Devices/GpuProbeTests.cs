using System.Diagnostics;
using System.Text;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Tests.Queue.Devices;

public sealed class GpuProbeTests : IDisposable
{
    private readonly FakeHost host = new();

    public void Dispose() => host.Dispose();

    [Fact]
    public void What_the_program_tells_is_read_in_bytes_and_in_the_order_of_the_numbers()
    {
        host.Gpus("1, GPU-b, NVIDIA A100, rev. 2, 40960, 1024, 100, 77, 250.5", FakeHost.Gpu(0));
        GpuReading reading = host.Probe().Read();
        Assert.Null(reading.Problem);
        Assert.Equal(
            [
                new Gpu(0, "GPU-00000000-aaaa", "NVIDIA Test", 24_000L << 20, 23_000L << 20, 5, 41, 60.25),
                new Gpu(1, "GPU-b", "NVIDIA A100, rev. 2", 40_960L << 20, 1024L << 20, 100, 77, 250.5),
            ], reading.Gpus);
    }

    [Fact]
    public void It_is_asked_for_what_it_documents()
    {
        host.Script("""printf '%s\n' "$@" > "$(dirname "$0")/asked"; exit 0""");
        Assert.Equal(GpuReading.None, host.Probe().Read());
        Assert.Equal(["--query-gpu=index,uuid,name,memory.total,memory.free,utilization.gpu,temperature.gpu,power.draw", "--format=csv,noheader,nounits"],
            File.ReadAllLines(Path.Combine(Path.GetDirectoryName(host.NvidiaSmi)!, "asked")));
    }

    [Theory]
    [InlineData("[N/A]")]
    [InlineData("[Not Supported]")]
    [InlineData("[Unknown Error]")]
    [InlineData("ERR!")]
    [InlineData("NaN")]
    [InlineData("-5000")]
    [InlineData("1e999")]
    public void What_it_does_not_know_is_not_known(string word)
    {
        host.Gpus($"0, GPU-a, NVIDIA GB10, {word}, {word}, {word}, {word}, {word}");
        Assert.Equal([new Gpu(0, "GPU-a", "NVIDIA GB10", null, null, null, null, null)], host.Probe().Read().Gpus);
    }

    [Fact]
    public void A_program_that_is_not_there_is_said_once_and_there_are_no_gpus()
    {
        GpuProbe probe = host.Probe(program: "/no/such/nvidia-smi");
        for (int i = 0; i < 5; i++, host.Time.Pass(60)) Assert.Empty(probe.Read().Gpus);
        Assert.StartsWith("This machine's GPUs are not known: /no/such/nvidia-smi cannot be started (", Assert.Single(host.Log.All), StringComparison.Ordinal);
    }

    [Fact]
    public void A_machine_without_the_driver_and_without_the_setting_is_not_asked()
    {
        GpuProbe probe = new(new DeviceOptions("", 1, 1, 0), host.Files, null, host.Time, host.Log);
        Assert.Same(GpuReading.None, probe.Read());
        Assert.Empty(host.Log.All);
        Directory.CreateDirectory(Path.Combine(host.Root, "proc/driver/nvidia"));
        Assert.NotSame(GpuReading.None, probe.Read());
    }

    [Theory]
    [InlineData("echo 'NVIDIA-SMI has failed because it could not communicate with the driver.'; exit 9", "ended with code 9 and said: NVIDIA-SMI has failed because it could not communicate with the driver")]
    [InlineData("echo 'no such device' >&2; exit 6", "ended with code 6 and said: no such device")]
    [InlineData("exit 1", "ended with code 1 and said: nothing")]
    [InlineData("head -c 3000 /dev/zero", "ended with code 0 and said: nothing")]
    [InlineData("echo 'No devices were found'", "ended with code 0 and said: No devices were found")]
    [InlineData("echo '0, GPU-a, half a line'", "ended with code 0 and said: 0, GPU-a, half a line")]
    public void A_program_that_fails_is_told_in_its_own_words(string body, string says)
    {
        host.Script(body);
        GpuReading reading = host.Probe().Read();
        Assert.Empty(reading.Gpus);
        Assert.Equal($"{host.NvidiaSmi} {says}", reading.Problem);
        Assert.Single(host.Log.All);
    }

    [Theory]
    [InlineData("sleep 1000")]
    [InlineData("sleep 1000 & echo $! > \"$(dirname \"$0\")/child\"; wait")]
    [InlineData("trap '' TERM; while :; do :; done")]
    public void A_program_that_hangs_is_killed_with_what_it_started(string body)
    {
        host.Script("echo $$ > \"$(dirname \"$0\")/child\"\n" + body);
        long start = Stopwatch.GetTimestamp();
        GpuReading reading = host.Probe(patience: 0.3).Read();
        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0.3, 4);
        Assert.Equal($"{host.NvidiaSmi} did not answer within 0.3 s", reading.Problem);
        int child = int.Parse(File.ReadAllText(Path.Combine(Path.GetDirectoryName(host.NvidiaSmi)!, "child")));
        Assert.True(SpinWait.SpinUntil(() => !Lives(child), TimeSpan.FromSeconds(5)), "it still runs");

        static bool Lives(int id)
        {
            try { return File.ReadAllText($"/proc/{id}/stat").Split(") ")[^1][0] is not ('Z' or 'X'); }
            catch (IOException) { return false; }
        }
    }

    [Fact]
    public void A_program_that_writes_without_end_is_killed_at_once()
    {
        host.Script("exec yes");
        long start = Stopwatch.GetTimestamp();
        Assert.EndsWith("did not answer within 5 s", host.Probe().Read().Problem, StringComparison.Ordinal);
        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0, 4);
    }

    [Fact]
    public void A_program_that_is_just_being_written_is_waited_for()
    {
        host.Gpus(FakeHost.Gpu(0));
        using FileStream writing = new(host.NvidiaSmi, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        using Timer written = new(_ => writing.Dispose(), null, TimeSpan.FromMilliseconds(60), Timeout.InfiniteTimeSpan);
        Assert.Single(host.Probe().Read().Gpus);
    }

    [Fact]
    public void It_is_asked_at_most_every_two_seconds_and_less_often_while_it_fails()
    {
        host.Gpus(FakeHost.Gpu(0));
        GpuProbe probe = host.Probe();
        Assert.Single(probe.Read().Gpus);
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1));
        host.Time.Pass(1.9);
        Assert.Single(probe.Read().Gpus);
        host.Time.Pass(0.2);
        Assert.Equal(2, probe.Read().Gpus.Count);
        host.Script("exit 3");
        host.Time.Pass(2);
        Assert.NotNull(probe.Read().Problem);
        host.Script("""cat "$(dirname "$0")/gpus.csv" """);
        host.Time.Pass(9);
        Assert.NotNull(probe.Read().Problem);
        host.Time.Pass(1);
        Assert.Equal((2, null), (probe.Read().Gpus.Count, probe.Read().Problem));
    }

    [Theory]
    [InlineData("", "")]
    [InlineData("0,1,2", "0 1 2")]
    [InlineData(" 2 , 0", "2 0")]
    [InlineData("1", "1")]
    [InlineData("1,-1,0", "1")]
    [InlineData("0,7,1", "0")]
    [InlineData("-1", "")]
    [InlineData("0,0", "")]
    [InlineData("NoDevFiles", "")]
    [InlineData("GPU-00000002", "2")]
    [InlineData("gpu-00000002-AAAA,GPU-00000001", "2 1")]
    [InlineData("GPU-0000000", "")]
    [InlineData("GPU-", "")]
    [InlineData("GPU-00000002,0", "2 0")]
    [InlineData("GPU-00000002,2", "")]
    public void Trainers_see_what_cuda_visible_devices_shows(string visible, string expected)
    {
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1), FakeHost.Gpu(2));
        Assert.Equal(expected, string.Join(' ', host.Probe(visible).Read().Gpus.Select(g => g.Index)));
    }

    [Fact]
    public void A_part_of_a_gpu_is_one_device_whose_memory_is_not_known()
    {
        host.Gpus(FakeHost.Gpu(0), FakeHost.Gpu(1, rest: "[N/A], 41, 60.25"));
        Gpu part = Assert.Single(host.Probe("MIG-GPU-00000001-aaaa/3/0,MIG-GPU-00000000-aaaa/1/0").Read().Gpus);
        Assert.Equal(("part of NVIDIA Test (MIG)", null, 1), (part.Name, part.TotalBytes, part.Index));
        Assert.Equal("part of a GPU (MIG)", Assert.Single(host.Probe("MIG-c7384736-a75d-5afc-978f-d2f1294409fd").Read().Gpus).Name);
    }

    [Fact]
    public void Any_text_is_read_without_a_fault()
    {
        int seed = Environment.TickCount;
        Random random = new(seed);
        string[] words = ["0", "1", "2", "-1", "99999999999", "GPU-a", "", " ", ",", ", ", "\n", "\r\n", "\0", "\t", "[N/A]", "NaN", "∞", "1e308", "24000", "3.5", "٣", "NVIDIA", "\u001b[31m", "0x10", "+4", ".", "-"];
        try
        {
            for (int round = 0; round < 3000; round++)
            {
                StringBuilder text = new();
                for (int i = random.Next(60); i > 0; i--)
                {
                    text.Append(random.Next(4) == 0 ? ((char)random.Next(0x3000)).ToString() : words[random.Next(words.Length)]);
                    if (random.Next(3) > 0) text.Append(", ");
                }
                IReadOnlyList<Gpu> gpus = GpuList.Parse(text.ToString());
                Assert.Equal(gpus.Select(g => g.Index).Distinct().Order(), gpus.Select(g => g.Index));
                Assert.All(gpus, g =>
                {
                    Assert.True(g.FreeBytes is null or >= 0 && (g.TotalBytes is null || g.FreeBytes is null || g.FreeBytes <= g.TotalBytes), g.ToString());
                    Assert.True(g.Utilization is null or (>= 0 and <= 100) && g.Name.Length <= 80 && !g.Name.Any(char.IsControl), g.ToString());
                });
                string visible = string.Concat(Enumerable.Range(0, random.Next(8)).Select(_ => words[random.Next(words.Length)] + ","));
                Assert.True(GpuList.Visible(gpus, visible).Count <= Math.Max(1, gpus.Count), visible);
            }
        }
        catch (Exception e) { throw new InvalidOperationException($"seed {seed}", e); }
    }
}
