using Microsoft.AspNetCore.Connections;
using NopeGpt.Jobs;
using NopeGpt.Web;
using NopeGpt.Web.Hosting;

if (args is ["--help" or "-h" or "help"])
{
    Console.WriteLine(DashboardArguments.Help);
    return ExitCode.Done;
}
CancellationToken end = EndRequest.Listen();
try
{
    await using WebApplication app = Dashboard.Build(args);
    await Dashboard.RunAsync(app, end);
    return ExitCode.Done;
}
catch (Exception e) when (Mistake(e) is { } mistake)
{
    Console.Error.WriteLine(mistake.Message);
    return mistake.ExitCode;
}

// What a person can mend is told in a sentence; everything else is a defect and shows where.
static UserException? Mistake(Exception e) => e switch
{
    UserException mistake => mistake,
    AggregateException several => several.InnerExceptions.Select(Mistake).FirstOrDefault(m => m is not null),
    IOException { InnerException: AddressInUseException } => DashboardArguments.InUse("The address"),
    _ => null,
};
