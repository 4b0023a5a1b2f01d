using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using NopeGpt.Jobs;
using NopeGpt.Tests;
using NopeGpt.Web.Tests.Live;
using Xunit.Abstractions;

namespace NopeGpt.Web.Tests.Faults;

/// <summary>A dashboard with a real trainer on a disk that is really full: a tmpfs in a mount namespace of its own, which this process reaches through /proc.</summary>
public sealed class FullDiskTests(TrainedStore store, ITestOutputHelper output) : IClassFixture<TrainedStore>, IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [NeedsFact(Needs.Mount)]
    public async Task A_full_disk_loses_nothing_and_with_room_again_everything_goes_on()
    {
        await using DashboardProcess dashboard = await StartAsync();
        // Stopped by the disk alone: it would train for hours.
        string id = await dashboard.AddAsync(store.Config with { Training = store.Config.Training with { MaxSteps = 1_000_000, CheckpointInterval = 50 } });
        RunFolder run = dashboard.Folder(id);
        await Wait.UntilAsync(() => run.Events().OfType<CheckpointEvent>().Any(), "a checkpoint");
        string filler = Path.Combine(dashboard.Root, "filler");
        Fill(filler);

        await Wait.UntilAsync(() => !ProcessSignals.IsAlive(run.ReadIdentity()!.ProcessId), "the trainer's end");
        string[] before = Directory.GetFileSystemEntries(Path.Combine(dashboard.Root, "runs"));
        Fill(filler + "2");
        using (HttpResponseMessage refused = await dashboard.Http.PostAsJsonAsync("/api/runs", new { kind = "prepare", prepare = new { dataset = "more", corpusBytes = 40_000, vocabularySize = 300 } }))
        {
            JsonElement why = await refused.Content.ReadFromJsonAsync<JsonElement>();
            output.WriteLine(why.ToString());
            Assert.Equal(HttpStatusCode.InsufficientStorage, refused.StatusCode);
            Assert.Contains("free some space", why.GetProperty("detail").GetString(), StringComparison.Ordinal);
        }
        Assert.Equal(before.Order(), Directory.GetFileSystemEntries(Path.Combine(dashboard.Root, "runs")).Order());
        foreach (string address in (string[])["/api/runs", $"/api/runs/{id}", $"/api/runs/{id}/events", $"/api/runs/{id}/log", "/", $"/runs/{id}"])
        {
            using HttpResponseMessage answer = await dashboard.Http.GetAsync(address);
            Assert.True(answer.IsSuccessStatusCode, $"{address}: {answer.StatusCode} {await answer.Content.ReadAsStringAsync()}");
        }

        File.Delete(filler);
        File.Delete(filler + "2");
        JsonElement failed = await dashboard.UntilAsync(id, RunState.Failed);
        output.WriteLine(failed.GetProperty("reason").GetString());
        Assert.Contains("make room", failed.GetProperty("reason").GetString(), StringComparison.Ordinal);
        Assert.All(Directory.GetDirectories(run.CheckpointsPath), c => Assert.StartsWith("step-", Path.GetFileName(c), StringComparison.Ordinal));
        using (HttpResponseMessage resumed = await dashboard.Http.PostAsync($"/api/runs/{id}/resume", null)) Assert.Equal(HttpStatusCode.Accepted, resumed.StatusCode);
        long told = run.LastSequence();
        await Wait.UntilAsync(() => run.Events(told).OfType<StartedEvent>().Any(s => s.FromStep > 0) && run.Events(told).OfType<CheckpointEvent>().Any(), "its next checkpoint");
        long[] sequences = [.. run.Events().Select(e => e.Sequence)];
        Assert.Equal(Enumerable.Range(1, sequences.Length).Select(n => (long)n), sequences);
        string more = await dashboard.AddAsync(new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { Dataset = "more", CorpusBytes = 40_000, VocabularySize = 300 } });
        await dashboard.UntilAsync(more, RunState.Completed);
        Assert.DoesNotContain("   at ", dashboard.Output, StringComparison.Ordinal);
    }

    [NeedsFact(Needs.Mount)]
    public async Task A_dashboard_that_starts_on_a_full_disk_says_so_in_a_sentence()
    {
        ProcessStartInfo start = Start("dd if=/dev/zero of=filler bs=64k >/dev/null 2>&1; true");
        InvalidOperationException e = await Assert.ThrowsAsync<InvalidOperationException>(() => DashboardProcess.StartAsync(start, _folder["disk"]));
        output.WriteLine(e.Message);
        Assert.Contains("cannot be", e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", e.Message, StringComparison.Ordinal);
    }

    private async Task<DashboardProcess> StartAsync()
    {
        DashboardProcess dashboard = await DashboardProcess.StartAsync(Start("true"), _folder["disk"]);
        dashboard.Root = $"/proc/{dashboard.Id}/root{_folder["disk"]}";
        return dashboard;
    }

    private ProcessStartInfo Start(string first)
    {
        Directory.CreateDirectory(_folder["disk"]);
        return new("unshare", ["--mount", "bash", "-c", $"mount -t tmpfs -o size=24m tmpfs '{_folder["disk"]}' && cd '{_folder["disk"]}' && {first} && exec '{DashboardProcess.Program}' --root '{_folder["disk"]}' --urls http://127.0.0.1:0"]);
    }

    private static void Fill(string path)
    {
        using FileStream file = new(path, FileMode.Create, FileAccess.Write, FileShare.None, bufferSize: 0);
        // Down to the last page, which a small file would still find.
        foreach (int size in (int[])[1 << 16, 1 << 12, 1])
        {
            try
            {
                byte[] zeros = new byte[size];
                while (true) file.Write(zeros);
            }
            catch (IOException) { /* full */ }
        }
    }
}
