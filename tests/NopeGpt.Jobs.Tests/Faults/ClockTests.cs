using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Tests.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Faults;

/// <summary>The machine's clock is set back an hour.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class ClockTests : IDisposable
{
    private static readonly TimeSpan Hour = TimeSpan.FromHours(1);
    private readonly TemporaryFolder folder = new();
    private readonly MovedClock clock = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task Nothing_waits_for_the_hour_to_pass_again()
    {
        await using QueueHarness queue = await StartAsync(("Jobs:RetrySeconds", "0.2"), ("Jobs:StopGraceSeconds", "0.5"));
        string works = await queue.AddAsync("steps:3000 delay:20 every:10"), dies = await queue.AddAsync("steps:4 die:2");
        long step = (await queue.UntilAsync(works, r => r is { State: RunState.Running, Step: > 0 }, "progress")).Step;
        clock.Set(-Hour);
        await queue.UntilAsync(works, r => r.Step > step, "more progress");
        await queue.Queue.StopAsync(works, StopRequest.Save);
        await queue.UntilAsync(works, RunState.Interrupted);
        await queue.UntilAsync(dies, r => r.RetryAt is not null, "its pause");
        clock.Set(-Hour);
        await queue.UntilAsync(dies, RunState.Completed);
        string deaf = await queue.AddAsync("steps:1000 delay:20 deaf"), last = await queue.AddAsync("steps:2");
        await queue.UntilCheckpointAsync(deaf);
        await queue.Queue.StopAsync(deaf, StopRequest.Save);
        clock.Set(-Hour);
        Assert.Contains("did not save within its time", (await queue.UntilAsync(deaf, RunState.Interrupted)).Reason, StringComparison.Ordinal);
        await queue.UntilAsync(last, RunState.Completed);
        // Attempts that began and ended in what is the future now.
        await queue.Queue.ResumeAsync(deaf);
        await queue.UntilAsync(deaf, r => r is { State: RunState.Running, Attempt: 2 }, "its second attempt");
        await queue.Queue.StopAsync(deaf, StopRequest.Kill);
        Assert.StartsWith("killed as asked", (await queue.UntilAsync(deaf, RunState.Interrupted)).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Only_the_time_before_which_a_run_shall_not_start_looks_at_the_clock()
    {
        await using QueueHarness queue = await StartAsync();
        string blocks = await queue.AddAsync("steps:1000 delay:20");
        await queue.UntilAsync(blocks, RunState.Running);
        string later = await queue.AddAsync("steps:1");
        await queue.Queue.ChangeAsync(later, new RunChange(NotBefore: clock.GetUtcNow() + Hour));
        await queue.Queue.StopAsync(blocks, StopRequest.Kill);
        await queue.UntilAsync(later, r => r.Reason?.StartsWith("it starts no earlier than", StringComparison.Ordinal) == true, "its reason");
        clock.Set(Hour);
        await queue.UntilAsync(later, RunState.Completed);
    }

    [Fact]
    public async Task Events_of_the_future_do_not_stand_for_the_end_of_a_later_attempt()
    {
        string id;
        RunFolder run;
        await using (QueueHarness queue = await StartAsync())
        {
            id = await queue.AddAsync("steps:300 delay:20");
            await queue.UntilCheckpointAsync(id);
            await queue.Queue.StopAsync(id, StopRequest.Save);
            await queue.UntilAsync(id, RunState.Interrupted);
            run = queue.Folder(id);
            // As they would be if the clock had been set back since.
            await File.WriteAllLinesAsync(run.EventsPath, run.Events().Select(e => JsonSerializer.Serialize(e with { Time = e.Time + Hour }, TrainingEvent.Json)).ToList());
            await queue.Queue.ResumeAsync(id);
            await queue.UntilAsync(id, r => r is { State: RunState.Running, Attempt: 2 } && run.Events().OfType<StartedEvent>().Count() == 2, "its second attempt");
            TrainerProcess.Adopt((await queue.Queue.FindAsync(id))!.Trainer!).Kill();
            RunRow row = await queue.UntilAsync(id, r => r.RetryAt is not null || r.State != RunState.Running, "its end");
            Assert.Contains("SIGKILL", row.Reason, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task An_attempt_from_a_terminal_is_seen_although_the_one_before_it_ended_in_the_future()
    {
        await using QueueHarness queue = await StartAsync();
        string id = await queue.AddAsync("steps:1000 delay:20");
        clock.Set(Hour);
        await queue.UntilCheckpointAsync(id);
        await queue.Queue.StopAsync(id, StopRequest.Save);
        await queue.UntilAsync(id, RunState.Interrupted);
        clock.Set(-Hour);
        // It came and went between two looks.
        RunFolder run = queue.Folder(id);
        long sequence = run.LastSequence();
        TrainingEvent[] told = [new StartedEvent(2, 1, 4_000_000, "by hand") { Sequence = sequence + 1 }, new EndedEvent(RunState.Completed, null) { Sequence = sequence + 2 }];
        await File.AppendAllLinesAsync(run.EventsPath, told.Select(e => JsonSerializer.Serialize(e with { Time = clock.GetUtcNow() }, TrainingEvent.Json)));
        run.WriteIdentity(new TrainerIdentity(4_000_000, 1, Foreground: true));
        await queue.UntilAsync(id, RunState.Completed);
    }

    private Task<QueueHarness> StartAsync(params (string Key, string Value)[] settings) =>
        QueueHarness.StartAsync(folder.Path, false, services => services.AddSingleton<TimeProvider>(clock), settings);
}
