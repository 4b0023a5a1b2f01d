return await NopeGpt.Jobs.Commands.CommandLine.RunAsync(args);
