using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Tests.Queue.Devices;

public sealed class HostFilesTests : IDisposable
{
    private readonly FakeHost host = new();

    public void Dispose() => host.Dispose();

    [Fact]
    public void Name_and_memory_are_the_machines()
    {
        Assert.Equal("Test Processor 3000", host.Files.CpuName);
        Assert.Equal((16_000_000L * 1024, 8_000_000L * 1024), host.Files.Memory());
    }

    [Theory]
    [InlineData("0::/\n", "sys/fs/cgroup")]
    [InlineData("0::/user.slice/it\n", "sys/fs/cgroup/user.slice/it")]
    [InlineData("0::/user.slice/it\n", "sys/fs/cgroup/user.slice")]
    [InlineData("0::/not/in/the/container\n", "sys/fs/cgroup")]
    public void A_control_group_that_may_take_less_counts(string groups, string limited)
    {
        host.Write("proc/self/cgroup", groups);
        host.Write($"{limited}/memory.max", "4000000000\n");
        host.Write($"{limited}/memory.current", "3000000000\n");
        host.Write($"{limited}/memory.stat", "anon 5\ninactive_file 500000000\n");
        Assert.Equal((4_000_000_000L, 1_500_000_000L), host.Files.Memory());
    }

    [Fact]
    public void A_group_of_the_first_version_counts_too_and_one_without_a_limit_does_not()
    {
        host.Write("proc/self/cgroup", "4:memory:/box\n3:cpuset:/\n0::/\n");
        host.Write("sys/fs/cgroup/memory.max", "max\n");
        host.Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        host.Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n");
        Assert.Equal((16_000_000L * 1024, 8_000_000L * 1024), host.Files.Memory());
        host.Write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "2000000000\n");
        host.Write("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "2500000000\n");
        Assert.Equal((2_000_000_000L, 0L), host.Files.Memory());
    }

    [Fact]
    public void Where_nothing_is_told_nothing_is_known()
    {
        HostFiles nothing = new("/no/such/root");
        Assert.Null(nothing.Memory());
        Assert.Null(nothing.Load());
        Assert.NotEmpty(nothing.CpuName);
        Assert.Equal(0, nothing.ResidentBytes(1));
        Assert.False(nothing.HasNvidiaDriver);
    }

    [Fact]
    public void Load_is_the_busy_part_of_the_time_between()
    {
        HostFiles files = host.Files;
        host.Write("proc/stat", "cpu  1000 0 0 9000 0 0 0 0 0 0\ncpu0 1 2 3\n");
        Assert.Null(files.Load());
        host.Write("proc/stat", "cpu  1200 50 50 9600 100 0 0 0 0 0\n");
        Assert.Equal(30, files.Load());
        Assert.Equal(30, files.Load());
    }

    [Fact]
    public void This_very_machine_tells_of_itself()
    {
        HostFiles real = new();
        (long total, long free) = real.Memory()!.Value;
        Assert.InRange(free, 1, total);
        Assert.InRange(real.ResidentBytes(Environment.ProcessId), 10_000_000, total);
    }
}
