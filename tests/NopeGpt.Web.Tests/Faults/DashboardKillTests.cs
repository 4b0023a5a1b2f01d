using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Net.Http.Json;
using System.Text.Json;
using Microsoft.AspNetCore.SignalR.Client;
using Microsoft.Extensions.DependencyInjection;
using NopeGpt.Jobs;
using NopeGpt.Tests;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Faults;

/// <summary>Real dashboards that are killed or closed while a real trainer works for them.</summary>
public sealed class DashboardKillTests(TrainedStore store) : IClassFixture<TrainedStore>, IDisposable
{
    private readonly TemporaryFolder _root = new();

    public void Dispose() => _root.Dispose();

    [Fact]
    public async Task Killed_while_a_run_trains_the_next_one_adopts_it_and_no_event_is_missing_or_doubled()
    {
        (string id, TrainerIdentity trainer) = await BeginAsync(async (dashboard, trainer) =>
        {
            // So that it still works when the next one comes, however quick it is.
            ProcessSignals.Freeze(trainer.ProcessId);
            dashboard.Kill();
            await dashboard.EndAsync();
        });
        RunFolder run = RunFolder.Open(Path.Combine(_root.Path, "runs", id));
        long told = run.LastSequence();
        ProcessSignals.Continue(trainer.ProcessId);
        await Wait.UntilAsync(() => run.LastSequence() > told + 10, "news without a dashboard");
        ProcessSignals.Freeze(trainer.ProcessId);
        await using DashboardProcess next = await DashboardProcess.StartAsync(_root.Path);
        JsonElement adopted = await next.RunAsync(id);
        Assert.Equal(("Running", 1), (adopted.GetProperty("state").GetString(), adopted.GetProperty("attempts").GetInt32()));
        Assert.Equal(trainer, run.ReadIdentity());

        await using HubConnection hub = Hub(next);
        ConcurrentQueue<TrainingEvent> seen = [];
        hub.On<string, TrainingEvent[]>("Events", (_, events) =>
        {
            foreach (TrainingEvent one in events) seen.Enqueue(one);
        });
        await hub.StartAsync();
        TrainingEvent[] before = await hub.InvokeAsync<TrainingEvent[]>("Follow", id, 0L);
        ProcessSignals.Continue(trainer.ProcessId);
        await next.UntilAsync(id, RunState.Completed);
        await Wait.UntilAsync(() => seen.Any(e => e is EndedEvent), "its last words");

        Assert.Single(run.Events().OfType<StartedEvent>());
        store.AssertSame(run);
        long[] live = [.. before.Concat(seen).Select(e => e.Sequence)];
        Assert.Equal(run.Events().Select(e => e.Sequence), live.Distinct());
        // What comes twice was told while the connection began to follow.
        Assert.Equal(live.Length, live.Distinct().Count());
        await AssertShownAsync(next, id);
    }

    [Fact]
    public async Task Asked_to_end_it_lets_the_trainer_save_and_the_next_one_goes_on_by_itself()
    {
        (string id, TrainerIdentity trainer) = await BeginAsync(async (dashboard, _) =>
        {
            dashboard.Terminate();
            Assert.Equal(ExitCode.Done, await dashboard.EndAsync());
        });
        Assert.False(ProcessSignals.IsAlive(trainer.ProcessId));
        RunFolder run = RunFolder.Open(Path.Combine(_root.Path, "runs", id));
        Assert.Equal(RunState.Interrupted, run.Events().OfType<EndedEvent>().Single().State);
        await using DashboardProcess next = await DashboardProcess.StartAsync(_root.Path);
        await next.UntilAsync(id, RunState.Completed);
        Assert.Equal(2, run.Events().OfType<StartedEvent>().Count());
        store.AssertSame(run);
        await AssertShownAsync(next, id);
    }

    [Fact]
    public async Task Killed_together_with_the_trainer_the_run_goes_on_by_itself_from_its_last_checkpoint()
    {
        (string id, TrainerIdentity trainer) = await BeginAsync(async (dashboard, trainer) =>
        {
            dashboard.Kill();
            ProcessSignals.Kill(trainer.ProcessId);
            await dashboard.EndAsync();
        });
        await Wait.UntilAsync(() => !ProcessSignals.IsAlive(trainer.ProcessId), "the trainer's end");
        await using DashboardProcess next = await DashboardProcess.StartAsync(_root.Path);
        await next.UntilAsync(id, RunState.Completed);
        RunFolder run = next.Folder(id);
        Assert.True(run.Events().OfType<StartedEvent>().Last().FromStep > 0);
        store.AssertSame(run);
        await AssertShownAsync(next, id);
    }

    /// <summary>A run whose trainer has a checkpoint and is in the midst of its work when something happens to the dashboard.</summary>
    private async Task<(string Id, TrainerIdentity Trainer)> BeginAsync(Func<DashboardProcess, TrainerIdentity, Task> happens)
    {
        await using DashboardProcess dashboard = await DashboardProcess.StartAsync(_root.Path);
        string id = await dashboard.AddAsync(store.Config);
        RunFolder run = dashboard.Folder(id);
        await Wait.UntilAsync(() => run.Events().OfType<CheckpointEvent>().Any(), "a checkpoint");
        TrainerIdentity trainer = run.ReadIdentity()!;
        await happens(dashboard, trainer);
        dashboard.LeaveTrainers = true;
        return (id, trainer);
    }

    /// <summary>The events and the chart that the dashboard answers with are those of the file.</summary>
    private static async Task AssertShownAsync(DashboardProcess dashboard, string id)
    {
        TrainingEvent[] shown = (await dashboard.Http.GetFromJsonAsync<TrainingEvent[]>($"/api/runs/{id}/events", TrainingEvent.Json))!;
        Assert.Equal(dashboard.Folder(id).Events().Select(Text), shown.Select(Text));
        byte[] series = await dashboard.Http.GetByteArrayAsync($"/api/runs/{id}/series?metric=train/loss&buckets=20000");
        const int size = 24;
        double[] steps = [.. Enumerable.Range(0, BinaryPrimitives.ReadInt32LittleEndian(series)).Select(i => BinaryPrimitives.ReadDoubleLittleEndian(series.AsSpan(4 + (i * size))))];
        Assert.Equal(Enumerable.Range(1, TrainedStore.Steps).Select(n => (double)n), steps);
    }

    private static string Text(TrainingEvent one) => JsonSerializer.Serialize(one, TrainingEvent.Json);

    private static HubConnection Hub(DashboardProcess dashboard) => new HubConnectionBuilder()
        .WithUrl(new Uri(dashboard.Http.BaseAddress!, "/hubs/metrics"))
        .AddJsonProtocol(o => o.PayloadSerializerOptions = new(TrainingEvent.Json)).Build();
}
