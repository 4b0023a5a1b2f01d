using System.Diagnostics;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Tests.Queue;
using NopeGpt.Tests;
using Xunit.Abstractions;

namespace NopeGpt.Jobs.Tests.Faults;

/// <summary>Many hands at one queue.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class QueueStormTests(ITestOutputHelper output) : IDisposable
{
    private const int Runs = 50, CommandsPerSecond = 20;
    private static readonly RunState[] Active = [RunState.Starting, RunState.Running, RunState.Stopping];

    // A minute in the nightly run.
    private static readonly int Seconds = Environment.GetEnvironmentVariable("NOPEGPT_NIGHTLY") == "1" ? 60 : 15;

    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task Twenty_commands_a_second_leave_the_table_consistent_and_every_run_comes_to_its_end()
    {
        int seed = Random.Shared.Next();
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:StopGraceSeconds", "5"), ("Jobs:RetrySeconds", "0.1"));
        List<string> ids = [];
        for (int i = 0; i < Runs; i++) ids.Add(await queue.AddAsync($"steps:{random.Next(1, 8)} delay:20 every:3"));

        Dictionary<string, int> done = [];
        for (int second = 0; second < Seconds; second++)
        {
            long start = Stopwatch.GetTimestamp();
            for (int i = 0; i < CommandsPerSecond; i++)
            {
                // Half of them to the runs at the head of the queue, where something happens.
                IReadOnlyList<RunRow> head = [.. (await queue.Queue.ListAsync()).Where(r => Active.Contains(r.State) || r.State == RunState.Queued).Take(4)];
                string id = random.Next(2) == 0 && head.Count > 0 ? head[random.Next(head.Count)].Id : ids[random.Next(Runs)];
                string command = await CommandAsync(queue.Queue, id, random);
                done[command] = done.GetValueOrDefault(command) + 1;
                TimeSpan ahead = TimeSpan.FromSeconds((i + 1.0) / CommandsPerSecond) - Stopwatch.GetElapsedTime(start);
                if (ahead > TimeSpan.Zero) await Task.Delay(ahead);
            }
            await ConsistentAsync(queue, ids);
        }
        output.WriteLine(string.Join(", ", done.Select(d => $"{d.Key} {d.Value}")));

        foreach (string id in ids) await queue.Queue.ChangeAsync(id, new RunChange(Held: false));
        foreach (string id in ids)
            await queue.UntilAsync(id, r => r.State is RunState.Completed or RunState.Interrupted or RunState.Cancelled or RunState.Failed, "its end", TimeSpan.FromSeconds(120));
        await ConsistentAsync(queue, ids);
        foreach (string id in ids)
        {
            TrainingEvent[] events = [.. queue.Folder(id).Events()];
            Assert.Equal(Enumerable.Range(1, events.Length).Select(n => (long)n), events.Select(e => e.Sequence));
            int completed = (await queue.Queue.FindAsync(id))!.State == RunState.Completed ? 1 : 0;
            Assert.Equal(completed, events.OfType<EndedEvent>().Count(e => e.State == RunState.Completed));
        }
    }

    /// <returns>What was done; with "refused" where the run's state does not allow it.</returns>
    private static async Task<string> CommandAsync(RunQueue queue, string id, Random random)
    {
        (string name, Func<Task> command) = random.Next(12) switch
        {
            0 or 1 => ("stop", () => queue.StopAsync(id, StopRequest.Save)),
            2 => ("kill", () => queue.StopAsync(id, StopRequest.Kill)),
            3 or 4 => ("resume", () => queue.ResumeAsync(id)),
            5 => ("start", () => queue.StartAsync(id)),
            6 or 7 => ("move", () => queue.MoveAsync(id, (QueueMove)random.Next(4))),
            8 => ("hold", () => queue.ChangeAsync(id, new RunChange(Held: true))),
            9 or 10 => ("release", () => queue.ChangeAsync(id, new RunChange(Held: false))),
            _ => ("priority", (Func<Task>)(() => queue.ChangeAsync(id, new RunChange(Priority: random.Next(3) - 1)))),
        };
        try
        {
            await command();
            return name;
        }
        catch (UserException) { return name + " refused"; }
    }

    /// <summary>What disagrees may be about to change: it must agree within seconds.</summary>
    private async Task ConsistentAsync(QueueHarness queue, List<string> ids)
    {
        List<string> wrong = [];
        for (int look = 0; look < 30; look++)
        {
            wrong = [.. Disagreements(await queue.Queue.ListAsync(), queue, ids)];
            if (wrong.Count == 0) return;
            await Task.Delay(100);
        }
        Assert.Empty(wrong);
    }

    private IEnumerable<string> Disagreements(IReadOnlyList<RunRow> rows, QueueHarness queue, List<string> ids)
    {
        // Only what stays: the dummies write down who was not alone.
        if (File.Exists(folder["overlaps"])) yield return "executed twice at once: " + File.ReadAllText(folder["overlaps"]);
        if (!rows.Select(r => r.Id).Order().SequenceEqual(ids.Order())) yield return $"{rows.Count} rows";
        foreach (var place in rows.GroupBy(r => r.QueuePosition).Where(g => g.Count() > 1)) yield return $"place {place.Key}: {string.Join(", ", place.Select(r => $"{r.Id} {r.State}"))}";
        RunRow[] active = [.. rows.Where(r => Active.Contains(r.State))];
        if (active.Length > 1) yield return $"at work: {string.Join(", ", active.Select(r => r.Id))}";
        foreach (RunRow row in rows)
        {
            RunFolder run = queue.Folder(row.Id);
            bool works = run.ReadIdentity() is { } identity && TrainerProcess.IsAlive(identity);
            if (works && !Active.Contains(row.State)) yield return $"{row.Id} is {row.State} and has a trainer";
            if (!works && row.State == RunState.Running) yield return $"{row.Id} is running and has no trainer";
            if (row.LeaseOwner is not null != Active.Contains(row.State) && row.State != RunState.Starting) yield return $"{row.Id} is {row.State} and its lease is {row.LeaseOwner ?? "free"}";
            if (row.State == RunState.Completed && !run.Events().OfType<EndedEvent>().Any(e => e.State == RunState.Completed)) yield return $"{row.Id} is completed without having said so";
            RunCard card = run.ReadCard();
            if ((card.Position, card.Priority, card.Held, card.Waiting) != (row.QueuePosition, row.Priority, row.Held, row.State is RunState.Queued or RunState.Starting))
                yield return $"{row.Id} is {row.State} at {row.QueuePosition}, priority {row.Priority}, {(row.Held ? "held" : "free")}; its card says {card}";
        }
    }
}
