using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Parsing;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Extensions.Configuration;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Jobs.Commands.Runs;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Inference;
using NopeGpt.Jobs.Queue;
using NopeGpt.Model.Native;

namespace NopeGpt.Jobs.Commands;

/// <summary>The frame of `nopegpt VERB ...`: finds the verb, reports everything wrong with its arguments at once, turns failures into
/// sentences on stderr and an exit code, and ends the work at SIGINT or SIGTERM.</summary>
internal static class CommandLine
{
    /// <summary>What a shell expects of a program that Ctrl+C ended.</summary>
    private const int Interrupted = 130;

    private static readonly ParserConfiguration Parsing = new() { EnablePosixBundling = false, ResponseFileTokenReplacer = null };

    private const string Name = "nopegpt", Description = "NopeGpt: train a small language model of your own and talk to it.";

    /// <summary>Every verb, in the order of the help.</summary>
    private static VerbGroup All() => new(Name, Description,
        new QuickstartVerb(), new PretrainVerb(), new FineTuneVerb(), new EstimateVerb(), new TrainVerb(), new GenerateVerb(), new BeamSearchVerb(), new ScoreVerb(), new InspectVerb(), new ImportVerb(), new ExportVerb(), new MergeVerb(),
        new VerbGroup("data", "Prepare, list, inspect and preview data sets and token files.", new DataListVerb(), new DataPrepareVerb(), new DataInspectVerb(), new DataPreviewVerb()),
        new VerbGroup("tokenizer", "Train tokenizers, turn text into ids and back, and compare what tokenizers make of a text.",
            new TokenizerTrainVerb(), new TokenizerEncodeVerb(), new TokenizerDecodeVerb(), new TokenizerCompareVerb()),
        new VerbGroup("runs", "The queue of runs, the same as the dashboard's, whether one runs or not.",
            new RunsListVerb(), new RunsShowVerb(), new RunsLogsVerb(),
            new RunsEachVerb("start", "Let runs start next: to the front of the queue, whatever holds them back by a person's wish. Those that have ended unfinished are queued again.", (queue, id, cancel) => queue.StartAsync(id, cancel)),
            new RunsStopVerb(), new RunsEachVerb("resume", "Put runs that have ended unfinished back at the end of the queue; they go on from their newest checkpoints.", (queue, id, cancel) => queue.ResumeAsync(id, cancel)),
            new RunsMoveVerb(), new RunsEachVerb("hold", "Hold runs: they keep their places and do not start.", (queue, id, cancel) => queue.ChangeAsync(id, new RunChange(Held: true), cancel)),
            new RunsEachVerb("release", "Let runs that are held start again.", (queue, id, cancel) => queue.ChangeAsync(id, new RunChange(Held: false), cancel)),
            new RunsSetVerb(), RunsCopyVerb.Duplicate(), RunsCopyVerb.Fork(), RunsPinVerb.Pin(), RunsPinVerb.Unpin(), new RunsDeleteVerb(), new RunsRestoreVerb(),
            RunsQueueVerb.Pause(), RunsQueueVerb.GoOn(), RunsQueueVerb.Show(), new RunsRebuildVerb()),
        new ServeVerb(), new WorkerVerb());

    public static async Task<int> RunAsync(string[] args)
    {
        Console.OutputEncoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
        Dictionary<Command, Verb> verbs = [];
        RootCommand root = new(Description);
        root.Directives.Clear();
        All().Fill(root, verbs);

        ParseResult result = root.Parse(Normalise(args, verbs.Keys), Parsing);
        Verb? chosen = verbs.GetValueOrDefault(result.CommandResult.Command);
        if (result.Action is HelpAction && chosen?.WriteHelp(Console.Out) == true) return ExitCode.Done;
        bool asks = result.Action is { ClearsParseErrors: true };
        if (asks || (chosen is null && result.UnmatchedTokens.Count == 0 && result.Errors.Count == 0)) return result.Invoke();
        return await GuardedAsync(() => RunVerbAsync(chosen, result, root));
    }

    private static async Task<int> RunVerbAsync(Verb? verb, ParseResult result, RootCommand root)
    {
        Arguments arguments = new(result, Configuration());
        // What the parser says of unknown words is replaced by a sentence with the nearest known name.
        arguments.Problems.AddRange(result.Errors.Select(e => e.Message).Where(m => !result.UnmatchedTokens.Any(t => m.EndsWith($" '{t}'.", StringComparison.Ordinal))));
        arguments.Problems.AddRange(Unknown(result, root));
        Func<CancellationToken, Task<int>>? work = verb?.Read(arguments);
        if (work is null || arguments.Problems.Count > 0)
        {
            foreach (string problem in arguments.Problems) await Console.Error.WriteLineAsync(PlainText.Of(problem, lines: true));
            return ExitCode.BadConfiguration;
        }
        using CancellationTokenSource stop = new();
        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
        using PosixSignalRegistration terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
        try { return await work(stop.Token); }
        catch (OperationCanceledException) when (stop.IsCancellationRequested) { return Interrupted; }

        void Stop(PosixSignalContext context)
        {
            // The second signal is not cancelled: it ends the process at once.
            context.Cancel = !stop.IsCancellationRequested;
            // On a thread of its own: what the token's listeners do must not hold up the next signal.
            _ = stop.CancelAsync();
        }
    }

    /// <summary>What failed, in words, and its exit code. Only a defect shows a trace.</summary>
    private static async Task<int> GuardedAsync(Func<Task<int>> run)
    {
        try { return await run(); }
        catch (UserException e) { return Fail(e.Message, e.ExitCode); }
        catch (ModelException e) { return Fail(e.Message, e.Failure == ModelFailure.NoRoom ? ExitCode.OutOfMemory : ExitCode.BadConfiguration); }
        catch (HubException e) { return Fail(e.Message, ExitCode.BadConfiguration); }
        catch (ProblemsException e) { return Fail(e.Message, ExitCode.BadConfiguration); }
        catch (TorchUnavailableException e) { return Fail(e.Message, ExitCode.BadConfiguration); }
        catch (Exception e) when (DiskErrors.IsUnwritable(e)) { return Fail($"{e.Message.TrimEnd('.')}: make room or mend the rights, then try again", ExitCode.DiskFull); }
        catch (Exception e) when (e is InvalidDataException or FileNotFoundException) { return Fail(e.Message, ExitCode.BadConfiguration); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return Fail(e.Message, ExitCode.DiskFull); }
#pragma warning disable CA1031 // the outermost frame: whatever it is, the exit code says that it is a defect
        catch (Exception e) { return Fail($"{e.Message}\n{e}", ExitCode.Defect); }
#pragma warning restore CA1031
    }

    private static int Fail(string message, int code)
    {
        try { Console.Error.WriteLine(PlainText.Of(message, lines: true)); }
        catch (IOException) { /* nobody can read it; the code tells */ }
        return code;
    }

    private static IConfiguration Configuration()
    {
        try
        {
            return new ConfigurationBuilder().SetBasePath(AppContext.BaseDirectory)
                .AddJsonFile("appsettings.json", optional: true).AddEnvironmentVariables("NOPEGPT_").Build();
        }
        catch (InvalidDataException e)
        {
            throw new UserException($"{Path.Combine(AppContext.BaseDirectory, "appsettings.json")} cannot be read ({(e.InnerException ?? e).Message.TrimEnd('.')}): mend its JSON");
        }
    }

    /// <summary>A sentence for each word that no verb, option or argument took, and for each that looks like an option but was taken for a value.</summary>
    private static IEnumerable<string> Unknown(ParseResult result, RootCommand root)
    {
        Command command = result.CommandResult.Command;
        bool afterUnknownOption = false;
        foreach (string word in Mistaken(result.CommandResult).Concat(result.UnmatchedTokens))
        {
            bool isOption = Arguments.LooksLikeOption(word);
            if (isOption)
            {
                string name = word.Split('=')[0];
                string? nearest = Settings.Nearest(name, command.Options.Concat(root.Options).Select(o => o.Name));
                yield return $"there is no option {name}{DidYouMean(nearest)} `{HelpOf(result.CommandResult)}` lists the options";
            }
            else if (afterUnknownOption)
            {
                // Its value.
            }
            else if (command.Subcommands.Any())
            {
                string? nearest = Settings.Nearest(word, command.Subcommands.Select(c => c.Name)) ?? Deeper(word, command);
                yield return $"there is no command {(command == root ? "" : $"{PathOf(result.CommandResult)} ")}{word}{DidYouMean(nearest)} `{HelpOf(result.CommandResult)}` lists the commands";
                yield break;
            }
            else
            {
                yield return $"'{word}' belongs to no option: quote texts with spaces; `{HelpOf(result.CommandResult)}` shows the usage";
            }
            afterUnknownOption = isOption && !word.Contains('=');
        }
    }

    /// <summary>Values that only an unknown option can be: the parser gives them to positions and to options that take several values.</summary>
    private static IEnumerable<string> Mistaken(CommandResult result) =>
        result.Children.Where(child => child is ArgumentResult or OptionResult { Option.AllowMultipleArgumentsPerToken: true })
            .SelectMany(child => child.Tokens).Select(token => token.Value).Where(Arguments.LooksLikeOption);

    /// <summary>The command of that name in one of the groups.</summary>
    private static string? Deeper(string word, Command command) =>
        command.Subcommands.Where(group => group.Subcommands.Any(verb => verb.Name == word)).Select(group => $"{group.Name} {word}").FirstOrDefault();

    private static string DidYouMean(string? nearest) => nearest is null ? ":" : $": did you mean {nearest}?";

    private static string HelpOf(CommandResult result) => $"{string.Join(' ', (string[])[Name, .. Words(result)])} --help";

    private static string PathOf(CommandResult result) => string.Join(' ', Words(result));

    private static IEnumerable<string> Words(CommandResult result) => result.Parent is CommandResult parent ? [.. Words(parent), result.Command.Name] : [];

    /// <summary>Known options written with hyphens become their names (--max-tokens -> --max_tokens); `help VERB` becomes `VERB --help`.
    /// Nothing else changes, values least of all.</summary>
    private static string[] Normalise(string[] args, IEnumerable<Command> verbs)
    {
        if (args is ["help", ..]) args = [.. args[1..], "--help"];
        HashSet<string> known = [.. verbs.SelectMany(c => c.Options).SelectMany(o => o.Aliases.Append(o.Name))];
        // --prompt= is an empty text, which the parser would take for a missing one.
        return [.. args.Select(Plain).SelectMany(w => w.EndsWith('=') && known.Contains(w[..^1]) ? (string[])[w[..^1], ""] : [w])];

        string Plain(string word)
        {
            if (!word.StartsWith("--", StringComparison.Ordinal)) return word;
            int equals = word.IndexOf('=', StringComparison.Ordinal);
            string name = equals < 0 ? word : word[..equals];
            string plain = string.Concat("--", name.AsSpan(2).ToString().Replace('-', '_'));
            return known.Contains(plain) ? string.Concat(plain, word.AsSpan(name.Length)) : word;
        }
    }
}
