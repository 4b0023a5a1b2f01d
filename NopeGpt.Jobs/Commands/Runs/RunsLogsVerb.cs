using System.CommandLine;
using System.Text;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>`nopegpt runs logs`: what a run's trainer says.</summary>
internal sealed class RunsLogsVerb() : RunsVerb("logs", "Print the log of a run's trainer.")
{
    private const int AllLines = int.MaxValue;
    private static readonly TimeSpan LookEvery = TimeSpan.FromMilliseconds(200), AskEvery = TimeSpan.FromMilliseconds(500);

    private readonly Argument<string?> run = One();
    private readonly Option<bool> follow = CommonOptions.Flag("--follow", "Go on with what is written, until the run has ended or Ctrl+C.");
    private readonly Option<string?> lines = CommonOptions.Text("--lines", "N", "Only the last lines. Default: all of them.");

    public override IReadOnlyList<Argument> Positions => [run];

    protected override IReadOnlyList<Option> Own => [follow, lines];

    protected override Func<RunsTerminal, CancellationToken, Task<int>> ReadOwn(Arguments arguments)
    {
        string words = arguments.Text(run) ?? "";
        bool goesOn = arguments.Flag(follow);
        int last = arguments.Whole(lines, 0, AllLines) ?? AllLines;
        return async (terminal, cancel) =>
        {
            RunRow row = await terminal.FindAsync(words, cancel);
            terminal.Client.LetGo();
            if (!RunFolder.TryOpen(terminal.Client.Store, row.Id, out RunFolder? folder)) throw new UserException($"run {row.Title}: its folder is gone");
            if (terminal.Json && goesOn) throw new UserException("--json: one document cannot follow a log; leave --follow out");
            LogTail tail = new(folder.LogPath);
            string text = LastLines(tail.Read(), last);
            if (terminal.Json) RunsTerminal.Print(new { row.Id, log = text });
            else await Console.Out.WriteAsync(PlainText.Of(text, lines: true));
            if (goesOn) await FollowAsync(terminal, row.Id, folder, tail, cancel);
            return ExitCode.Done;
        };
    }

    private static async Task FollowAsync(RunsTerminal terminal, string id, RunFolder folder, LogTail tail, CancellationToken cancel)
    {
        long asked = TimeProvider.System.GetTimestamp();
        while (true)
        {
            // Asked before the last look: what a trainer says at its end is in the file by then.
            bool over = TimeProvider.System.GetElapsedTime(asked) >= AskEvery && await IsOverAsync(terminal, id, folder, cancel);
            if (TimeProvider.System.GetElapsedTime(asked) >= AskEvery) asked = TimeProvider.System.GetTimestamp();
            await Console.Out.WriteAsync(PlainText.Of(tail.Read(), lines: true));
            await Console.Out.FlushAsync(cancel);
            if (over) return;
            await Task.Delay(LookEvery, cancel);
        }
    }

    private static async Task<bool> IsOverAsync(RunsTerminal terminal, string id, RunFolder folder, CancellationToken cancel)
    {
        RunRow? row = await terminal.Queue.FindAsync(id, cancel);
        if (row is null || RunStates.Ended.Contains(row.State)) return Reconciler.LiveTrainer(folder, row?.Trainer) is null;
        // Without a dashboard nobody writes into the table that the trainer has ended.
        return row.State != RunState.Queued && terminal.Client.IsUnattended && Reconciler.LiveTrainer(folder, row.Trainer) is null;
    }

    private static string LastLines(string text, int count)
    {
        if (count == 0) return "";
        int at = text.EndsWith('\n') ? text.Length - 1 : text.Length;
        for (int line = 0; line < count && at > 0; line++) at = text.LastIndexOf('\n', at - 1);
        return at <= 0 ? text : text[(at + 1)..];
    }

    /// <summary>What was added to a file since the last look, whole characters only.</summary>
    private sealed class LogTail(string path)
    {
        private readonly Decoder decoder = Encoding.UTF8.GetDecoder();
        private long offset;

        public string Read()
        {
            if (!File.Exists(path)) return "";
            using FileStream stream = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            stream.Position = offset;
            using MemoryStream added = new();
            stream.CopyTo(added);
            offset += added.Length;
            char[] text = new char[decoder.GetCharCount(added.GetBuffer(), 0, (int)added.Length, flush: false)];
            return new string(text, 0, decoder.GetChars(added.GetBuffer(), 0, (int)added.Length, text, 0, flush: false));
        }
    }
}
