using System.Globalization;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Logging.Console;

namespace NopeGpt.Jobs.Queue.Hosts;

/// <summary>The log of a program on a terminal or in a service's journal: one line for each event, time and words.</summary>
internal sealed class PlainLines(TimeProvider time) : ConsoleFormatter(Name)
{
    public new const string Name = "nopegpt";

    public override void Write<TState>(in LogEntry<TState> logEntry, IExternalScopeProvider? scopeProvider, TextWriter textWriter)
    {
        string level = logEntry.LogLevel switch
        {
            >= LogLevel.Error => "error: ",
            LogLevel.Warning => "warning: ",
            _ => "",
        };
        textWriter.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{time.GetLocalNow():yyyy-MM-dd HH:mm:ss} {level}{logEntry.Formatter(logEntry.State, logEntry.Exception)}"));
        if (logEntry.Exception is not null) textWriter.WriteLine(logEntry.Exception);
    }
}
