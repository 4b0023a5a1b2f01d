using NopeGpt.Jobs;
using NopeGpt.Web;
using NopeGpt.Web.Hosting;

if (args is ["--help" or "-h" or "help"])
{
    Console.WriteLine(DashboardArguments.Help);
    return ExitCode.Done;
}
try
{
    await using WebApplication app = Dashboard.Build(args);
    await app.RunAsync();
    return ExitCode.Done;
}
catch (UserException e)
{
    Console.Error.WriteLine(e.Message);
    return e.ExitCode;
}
