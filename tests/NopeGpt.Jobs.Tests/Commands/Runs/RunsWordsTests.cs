using NopeGpt.Jobs.Commands;
using NopeGpt.Jobs.Commands.Runs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Tests.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Commands.Runs;

/// <summary>How `nopegpt runs` reads and writes single words.</summary>
public sealed class RunsWordsTests
{
    private static readonly (string Id, string Name)[] Known = [("20261123-031500-7f3a", "one"), ("20261123-031500-8000", "two"), ("20261124-000000-aaaa", "two"), ("20261125-000000-bbbb", "20261123")];

    [Theory]
    [InlineData("20261123-031500-7f3a", "20261123-031500-7f3a")]
    [InlineData("20261124", "20261124-000000-aaaa")]
    [InlineData("one", "20261123-031500-7f3a")]
    // A name counts for more than the beginning of an id.
    [InlineData("20261123", "20261125-000000-bbbb")]
    [InlineData("20261123-", null)]
    [InlineData("two", null)]
    [InlineData("on", null)]
    [InlineData("", null)]
    [InlineData("..", null)]
    [InlineData("../../etc", null)]
    [InlineData("%2e%2e", null)]
    [InlineData("CON", null)]
    [InlineData("a\0b", null)]
    public void A_run_is_meant_by_its_id_its_name_or_the_beginning_of_its_id(string words, string? id)
    {
        List<string> problems = [];
        Assert.Equal(id, RunsTerminal.Meant(words, Known, "here", problems));
        Assert.Equal(id is null ? 1 : 0, problems.Count);
        Assert.All(problems, p => Assert.DoesNotContain(p, char.IsControl));
    }

    [Fact]
    public void Words_that_may_mean_several_runs_get_a_list_of_them()
    {
        List<string> problems = [];
        RunsTerminal.Meant("two", Known, "here", problems);
        Assert.Equal("RUN = two: it may be any of these: 20261123-031500-8000 two; 20261124-000000-aaaa two; give more of the id", problems.Single());
    }

    [Theory]
    [InlineData("2026-11-24T08:00Z", "2026-11-24T08:00:00Z")]
    [InlineData("2026-11-24T08:00:30+01:00", "2026-11-24T07:00:30Z")]
    [InlineData("+90m", "2026-11-23T13:30:00Z")]
    [InlineData("+1.5h", "2026-11-23T13:30:00Z")]
    [InlineData("+2d", "2026-11-25T12:00:00Z")]
    [InlineData("+30s", "2026-11-23T12:00:30Z")]
    [InlineData("soon", null)]
    [InlineData("+1e9d", null)]
    [InlineData("+h", null)]
    [InlineData("25:00", null)]
    [InlineData("24.11.2026", null)]
    public void A_time_is_read_as_people_write_it(string text, string? expected)
    {
        DateTimeOffset now = DateTimeOffset.Parse("2026-11-23T12:00:00Z", System.Globalization.CultureInfo.InvariantCulture);
        Assert.Equal(expected is null ? null : DateTimeOffset.Parse(expected, System.Globalization.CultureInfo.InvariantCulture), RunsSetVerb.ReadTime(text, now));
    }

    [Fact]
    public void A_time_of_day_is_the_next_one()
    {
        DateTimeOffset noon = new(new DateTime(2026, 11, 23, 12, 0, 0, DateTimeKind.Local));
        Assert.Equal(new DateTime(2026, 11, 23, 22, 30, 0), RunsSetVerb.ReadTime("22:30", noon)!.Value.LocalDateTime);
        Assert.Equal(new DateTime(2026, 11, 24, 8, 5, 0), RunsSetVerb.ReadTime("8:05", noon)!.Value.LocalDateTime);
    }

    [Theory]
    [InlineData("plain ä 日本 👩‍🚀", "plain ä 日本 👩‍🚀")]
    [InlineData("\e[2J", @"\u001b[2J")]
    [InlineData("a\nb\tc", @"a\u000ab\u0009c")]
    [InlineData("\u009b31m", @"\u009b31m")]
    [InlineData("\u202Egpj.exe", @"\u202egpj.exe")]
    [InlineData("\u2028", @"\u2028")]
    public void Text_of_others_keeps_its_letters_only(string text, string shown) => Assert.Equal(shown, PlainText.Of(text));

    [Fact]
    public void A_text_of_lines_keeps_its_lines() => Assert.Equal("a\n\tb\\u000d\n", PlainText.Of("a\n\tb\r\n", lines: true));

    [Fact]
    public async Task A_dashboard_waits_for_a_command_and_a_command_does_not_wait_for_a_dashboard()
    {
        using TemporaryFolder folder = new();
        Store store = new(folder.Path);
        (DashboardLock? command, _) = await DashboardLock.TryTakeAsync(store, CancellationToken.None);
        Task<DashboardLock> dashboard = DashboardLock.TakeAsync(store, CancellationToken.None);
        Task<(DashboardLock? Taken, string)> another = DashboardLock.TryTakeAsync(store, CancellationToken.None);
        await Task.Delay(50);
        Assert.False(dashboard.IsCompleted || another.IsCompleted);
        command!.Dispose();
        // One of the two gets it, and where that is the dashboard, the other learns of it.
        Task first = await Task.WhenAny(dashboard, another);
        if (first == another && (await another).Taken is { } taken) taken.Dispose();
        using DashboardLock held = await dashboard;
        (DashboardLock? none, string process) = await DashboardLock.TryTakeAsync(store, CancellationToken.None);
        Assert.Equal((null, $" (process {Environment.ProcessId})"), (none, process));
        await another;
    }
}
