using System.Net;
using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Tests;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Faults;

/// <summary>Run folders whose files were damaged, in a store that a real dashboard opens.</summary>
public sealed class DamagedFilesTests : IDisposable
{
    private readonly TemporaryFolder _root = new();

    public void Dispose() => _root.Dispose();

    [Fact]
    public async Task A_damaged_run_json_takes_nothing_else_down_and_is_said()
    {
        Store store = new(_root.Path);
        Scribe sound = new(store, new RunConfig { Kind = RunKind.Prepare, Name = "sound" });
        sound.Write(new StartedEvent(1, 0, 42, "cpu"), new EndedEvent(RunState.Completed, null));
        string[] damages = ["", "{", "null", "[]", "42", "{\"id\": \"x\"}", new string('\0', 100), "\u00ff\u0001garbage", "{\"format_version\": 99}", "{\"format_version\": \"x\", \"id\": 3}"];
        List<Scribe> damaged = [];
        foreach (string damage in damages)
        {
            Scribe run = new(store);
            File.WriteAllText(run.Folder.RecordPath, damage);
            damaged.Add(run);
        }
        await using DashboardProcess dashboard = await DashboardProcess.StartAsync(_root.Path);
        Assert.Equal("Completed", (await dashboard.RunAsync(sound.Id)).GetProperty("state").GetString());
        foreach (Scribe run in damaged)
        {
            Assert.Contains(run.Folder.RecordPath, dashboard.Output, StringComparison.Ordinal);
            using HttpResponseMessage answer = await dashboard.Http.GetAsync($"/api/runs/{run.Id}");
            Assert.Equal(HttpStatusCode.NotFound, answer.StatusCode);
            foreach (string what in (string[])[$"/api/runs/{run.Id}/events", $"/api/runs/{run.Id}/log", $"/runs/{run.Id}"])
            {
                using HttpResponseMessage other = await dashboard.Http.GetAsync(what);
                Assert.True((int)other.StatusCode < 500, $"{what}: {other.StatusCode}");
            }
        }
        // And of one that the table knows.
        File.WriteAllText(sound.Folder.RecordPath, "{");
        foreach (string what in (string[])["/api/runs", $"/api/runs/{sound.Id}", $"/runs/{sound.Id}", "/runs", "/"])
        {
            using HttpResponseMessage answer = await dashboard.Http.GetAsync(what);
            Assert.True(answer.StatusCode == HttpStatusCode.OK, $"{what}: {answer.StatusCode} {dashboard.Output}");
        }
        Assert.DoesNotContain("   at ", dashboard.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_damaged_line_of_the_events_loses_that_line_only_and_is_said()
    {
        Store store = new(_root.Path);
        Scribe run = new(store), empty = new(store), torn = new(store);
        run.Write(new StartedEvent(1, 0, 42, "cpu"), Scribe.Step(1, 5), Scribe.Step(2, 4));
        run.Number(Scribe.Step(3, 3));
        foreach (string garbage in (string[])["\u0000\u0001\u00ff garbage", "null", "[]", "{\"type\": \"unheard\"}", "{\"type\": \"metrics\", \"sequence\": \"x\"}", "{\"type\": \"metrics\", \"sequence\": 4}", new string('x', 200_000), ""]) run.Append(garbage + "\n");
        run.Write(Scribe.Step(4, 2), new EndedEvent(RunState.Interrupted, "stopped and saved at step 4"));
        run.Append("{\"type\": \"metrics\", \"sequ");
        File.WriteAllText(empty.Folder.EventsPath, "");
        torn.Write(new StartedEvent(1, 0, 42, "cpu"), Scribe.Step(1, 5));
        torn.Append("{\"type\":\"ended\",\"state\":\"completed\"");
        await using DashboardProcess dashboard = await DashboardProcess.StartAsync(_root.Path);

        Assert.Equal((long[])[1, 2, 3, 5, 6], await SequencesAsync(dashboard, run.Id));
        JsonElement shown = await dashboard.RunAsync(run.Id);
        Assert.Equal(("Interrupted", "stopped and saved at step 4", 4), (shown.GetProperty("state").GetString(), shown.GetProperty("reason").GetString(), shown.GetProperty("step").GetInt32()));
        Assert.Empty(await SequencesAsync(dashboard, empty.Id));
        Assert.Equal((long[])[1, 2], await SequencesAsync(dashboard, torn.Id));
        Assert.Equal("Interrupted", (await dashboard.RunAsync(torn.Id)).GetProperty("state").GetString());
        Assert.NotEmpty(await dashboard.Http.GetByteArrayAsync($"/api/runs/{run.Id}/series?metric=train/loss"));
        foreach (int line in (int[])[4, 5, 6, 7, 8, 10]) Assert.Contains($"{run.Folder.EventsPath} line {line} is damaged and left out", dashboard.Output, StringComparison.Ordinal);
        Assert.DoesNotContain($"{torn.Folder.EventsPath} line", dashboard.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", dashboard.Output, StringComparison.Ordinal);
    }

    private static async Task<long[]> SequencesAsync(DashboardProcess dashboard, string id)
    {
        using JsonDocument events = JsonDocument.Parse(await dashboard.Http.GetStringAsync($"/api/runs/{id}/events"));
        return [.. events.RootElement.EnumerateArray().Select(e => e.GetProperty("sequence").GetInt64())];
    }
}
